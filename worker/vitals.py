"""Signs of life of a worker: what it did last that proves that it would take a job, in a file of its home.

A lock that is held, or a broker that answers, proves nothing of the kind: workers are known that kept both and
consumed nothing. `problem` reads the file from another process, for the health checks of containers.
"""

import contextlib
import json
import threading
import time
from pathlib import Path

from core.settings import Settings

LOOK_SECONDS = 30.0
HEAR_SECONDS = 60.0
WRITE_SECONDS = 1.0


class Vitals:
    """Times are on the monotonic clock, which the processes of one machine share."""

    def __init__(self, home: Path) -> None:
        self._path = vitals_path(home)
        self._lock = threading.Lock()
        self._signs: dict[str, float] = {}
        self._written_at = 0.0
        self._path.unlink(missing_ok=True)

    def looked(self) -> None:
        """The node went round: free slots were woken for what waits in the database."""
        self._note("looked")

    def heard(self) -> None:
        """A message that was sent to this worker over the broker came out of it; or the broker takes none."""
        self._note("heard")

    def _note(self, sign: str) -> None:
        now = time.monotonic()
        with self._lock:
            fresh = sign not in self._signs
            self._signs[sign] = now
            if not fresh and now - self._written_at < WRITE_SECONDS:
                return
            self._written_at = now
            temporary = self._path.with_suffix(".tmp")
            with contextlib.suppress(OSError):  # a full disk is no reason to end; the file grows old and says so
                temporary.write_text(json.dumps(self._signs))
                temporary.replace(self._path)


def vitals_path(home: Path) -> Path:
    return home / "worker-vitals.json"


def check(settings: Settings, _parent_fd: int | None) -> int:
    """Exit code 0 or 1, and a line that says why: `evenkeel worker --check`."""
    found = problem(settings)
    print(found or "the worker consumes work")
    return int(found is not None)


def problem(settings: Settings) -> str | None:
    """Why the worker of this home is to be started anew; None: it consumes what comes."""
    path = vitals_path(settings.home)
    try:
        signs = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        return f"no worker has given a sign of life in {path} ({error})"
    limits = {"looked": settings.resolved_poll_seconds + LOOK_SECONDS}
    if settings.broker_url is not None:
        limits["heard"] = HEAR_SECONDS
    for sign, limit in limits.items():
        age = time.monotonic() - signs.get(sign, float("-inf"))
        if not 0.0 <= age <= limit:  # below 0: from before the machine started
            return f"the worker has not {sign} for work within the last {limit:g} s"
    return None
