"""The body of an upload: from the wire to a file as it arrives, never whole in memory."""

import hashlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from anyio.to_thread import run_sync

from core.errors import InputInvalid, StorageFailed

PART_BYTES = 1024**2
ABANDONED_SECONDS = 6 * 3600.0
"""A folder that nobody wrote to for so long was left by a process that was killed."""


@dataclass(frozen=True)
class Received:
    """`file` lies alone in a folder of its own, which is gone at the end of the request."""

    file: Path
    sha256: str
    bytes: int


@asynccontextmanager
async def received(stream: AsyncIterator[bytes], parent: Path) -> AsyncIterator[Received]:
    """Raises InputInvalid when nothing came, StorageFailed when the disk is full."""
    with writing_to(parent):
        folder = await run_sync(_new_folder, parent)
    try:
        yield await _written(stream, folder / "upload")
    finally:
        await run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))


async def _written(stream: AsyncIterator[bytes], target: Path) -> Received:
    digest, size, waiting = hashlib.sha256(), 0, bytearray()
    with target.open("wb") as file:

        def write() -> None:
            with writing_to(target.parent.parent):
                file.write(waiting)
                file.flush()
            digest.update(waiting)
            waiting.clear()

        async for part in stream:
            size += len(part)
            waiting += part
            if len(waiting) >= PART_BYTES:
                await run_sync(write)
        await run_sync(write)
    if size == 0:
        raise InputInvalid("the body is empty: send an .npz file, or CSV")
    return Received(target, digest.hexdigest(), size)


def _new_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.iterdir():
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(folder)
    return Path(tempfile.mkdtemp(prefix="upload-", dir=parent))


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """A disk that is full is no error of ours, and none of the upload."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"an upload can not be written to {folder}: {error.strerror or error}") from error
