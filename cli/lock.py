"""The lock of a home: only one `evenkeel up` at a time, whatever else happens on the machine."""

import fcntl
import os
import time
from pathlib import Path

from core.errors import Conflict, SettingsInvalid

PREDECESSOR_SECONDS = 3.0  # its processes end within one second of it
RETRY_SECONDS = 0.05


def hold(home: Path) -> int:
    """Descriptor that holds the lock until it and every copy inherited by a child are closed.

    Raises Conflict, naming the home and the holder, when it is still held after PREDECESSOR_SECONDS, and
    SettingsInvalid when the folder can not be used.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(home / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SettingsInvalid(
            f"{home} can not be a home ({error.strerror}): give a folder that you may write to as --home"
        ) from None
    deadline = time.monotonic() + PREDECESSOR_SECONDS
    while not _try(descriptor):
        if time.monotonic() > deadline:
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise Conflict(
                f"{home} is in use by another `evenkeel up` (process {holder}): stop that one, or give another --home"
            )
        time.sleep(RETRY_SECONDS)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
