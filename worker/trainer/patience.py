"""What a trainer does while the artifact store is away: it tries again, later each time, and gives up in the end."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from core.errors import JobFailed, StorageAway
from worker.trainer.reporting import Interrupted, Reporter

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
LISTEN_SECONDS = 0.2
T = TypeVar("T")


class Patience:
    """For a store that may be away `seconds` at a time. Tells of every try, so that the supervisor hears of this
    trainer, and users of the outage."""

    def __init__(self, seconds: float, reporter: Reporter) -> None:
        self._seconds = seconds
        self._reporter = reporter
        self._since: float | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._next_try = 0.0

    @property
    def waiting(self) -> bool:
        """Between two tries of an outage: another one would only cost time."""
        return time.monotonic() < self._next_try

    @property
    def due(self) -> bool:
        """In an outage, and it is time to try again."""
        return self._since is not None and not self.waiting

    def missed(self, error: StorageAway) -> None:
        """Raises JobFailed("storage_error") when the store has been away for too long."""
        now = time.monotonic()
        if self._since is None:
            self._since, self._pause = now, FIRST_PAUSE_SECONDS
        away = now - self._since
        if away >= self._seconds:
            text = f"the artifact store was away for {away:.0f} s: {error.message}"
            raise JobFailed("storage_error", f"{text}; see to the storage, then retry") from error
        self._reporter.log("warning", f"the artifact store is away, next try in {self._pause:g} s: {error.message}")
        self._next_try = now + self._pause
        self._pause = min(LONGEST_PAUSE_SECONDS, 2 * self._pause)

    def answered(self) -> None:
        if self._since is not None:
            self._reporter.log("info", f"the artifact store is back after {time.monotonic() - self._since:.0f} s")
            self._since, self._next_try = None, 0.0

    def insist(self, action: Callable[[], T]) -> T:
        """What `action` gives, tried until the store answers. Raises Interrupted when a command comes meanwhile."""
        while True:
            try:
                result = action()
            except StorageAway as error:
                self.missed(error)
                self._wait()
            else:
                self.answered()
                return result

    def _wait(self) -> None:
        pause = threading.Event()
        while self.waiting:
            command = self._reporter.sink.command()
            if command is not None:
                raise Interrupted(command)
            pause.wait(LISTEN_SECONDS)
