"""The bell: it says only "there is work". Lost, doubled or late bells change nothing; the row is the truth.

On one machine it is a named pipe in the home; with `EVENKEEL_BROKER_URL` it is a Celery message
(`core.queue`), which each worker passes on to the pipe of its own home.
"""

import contextlib
import importlib
import os
from pathlib import Path

from core.settings import Settings

QUEUE = "core.queue"  # by name: loaded only where there is a broker, as it costs 28 MB


def bell_path(home: Path) -> Path:
    """A named pipe, which unlike a socket has no bound on the length of its path."""
    return home / "bell"


def ring(settings: Settings, needs_cuda: bool) -> None:
    """Wakes a worker. Never fails and never blocks for long: a worker that is away will look by itself."""
    if settings.broker_url is None:
        ring_here(settings.home)
    else:
        importlib.import_module(QUEUE).ring(settings.broker_url, needs_cuda)


def ring_here(home: Path) -> None:
    """Wakes the worker of this home."""
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
