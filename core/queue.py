"""The bell: it says only "there is work". Lost, doubled or late bells change nothing; the row is the truth."""

import contextlib
import os
from pathlib import Path


def bell_path(home: Path) -> Path:
    """A named pipe, which unlike a socket has no bound on the length of its path."""
    return home / "bell"


def ring(home: Path) -> None:
    """Wakes this home's worker. Never blocks and never fails: a worker that is away will look by itself."""
    with contextlib.suppress(OSError):
        bell = os.open(bell_path(home), os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(bell, b"\a")
        finally:
            os.close(bell)


def open_bell(home: Path) -> int:
    """The worker's end, as a file descriptor to select on. Opened for writing too, so that it never reads EOF."""
    path = bell_path(home)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK)


def hear(bell: int) -> int:
    """How often the bell was rung since the last call."""
    with contextlib.suppress(BlockingIOError):
        return len(os.read(bell, 4096))
    return 0
