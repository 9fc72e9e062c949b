"""How long a node takes no job after one that it could not begin: whoever is broken must not take job after job."""

import threading
import time

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0


class Pause:
    """Doubles with each failure, whatever slot it came from, until something works again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._until = 0.0

    @property
    def left_seconds(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def failed(self) -> None:
        """Failures of several slots in one pause count as one."""
        with self._lock:
            if not self.left_seconds:
                self._seconds = min(LONGEST_SECONDS, 2 * self._seconds or FIRST_SECONDS)
                self._until = time.monotonic() + self._seconds

    def worked(self) -> None:
        with self._lock:
            self._seconds = self._until = 0.0

    def wait(self, unless: threading.Event) -> None:
        """Blocks while the pause lasts, or until `unless` is set."""
        while self.left_seconds and not unless.wait(self.left_seconds):
            pass
