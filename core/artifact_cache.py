"""Local copies of what lies in an object store: bounded, checked, shared by the processes of a node.

Nothing here is needed: whatever goes wrong with a copy, the store is asked instead.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger("evenkeel.artifacts")


class ArtifactCache:
    """One file a content, under its SHA-256 (hexadecimal); the one unused for longest leaves first."""

    def __init__(self, folder: Path, maximum_bytes: int) -> None:
        self._folder = folder
        self._maximum_bytes = maximum_bytes

    def get(self, sha256: str) -> bytes | None:
        """The content, or None where it is not here. A copy that is not what its name says is removed."""
        path = self._folder / sha256
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == sha256:
                with suppress(OSError):
                    os.utime(path)  # when it was last used; the access time is often not kept
                return content
            log.warning("the local copy of %s is corrupt, and is read from the store again", sha256)
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("the local copy of %s can not be used: %s", sha256, error)
        return None

    def put(self, sha256: str, content: bytes) -> None:
        """Keeps a copy, at the cost of others; nothing happens to what is larger than the bound.

        Never raises: a full disk only means no copy. Not synced to the disk, as a hit is checked.
        """
        self._keep(sha256, len(content), lambda temporary: temporary.write_bytes(content))

    def open(self, sha256: str) -> BinaryIO | None:
        """As `get`, for content that need not fit into memory; readable while it is open, whatever leaves the cache."""
        path = self._folder / sha256
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("the local copy of %s can not be used: %s", sha256, error)
            return None
        if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
            with suppress(OSError):
                os.utime(path)
            return file
        file.close()
        log.warning("the local copy of %s is corrupt, and is read from the store again", sha256)
        path.unlink(missing_ok=True)
        return None

    def folder(self) -> Path:
        """Where its copies lie, made if need be."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def put_file(self, sha256: str, file: BinaryIO, size: int) -> None:
        """As `put`, for the content of an open file."""

        def copy(temporary: Path) -> None:
            file.seek(0)
            with temporary.open("wb") as target:
                shutil.copyfileobj(file, target)

        self._keep(sha256, size, copy)

    def _keep(self, sha256: str, size: int, write: Callable[[Path], object]) -> None:
        if size > self._maximum_bytes or (self._folder / sha256).exists():
            return
        temporary = self._folder / f".{sha256}.tmp"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                self._make_room(size)
                try:
                    write(temporary)
                    temporary.rename(self._folder / sha256)
                except OSError:
                    temporary.unlink(missing_ok=True)
                    raise
        except OSError as error:
            log.warning("no local copy of %s is kept: %s", sha256, error)

    def _make_room(self, wanted_bytes: int) -> None:
        """Removes what was unused for longest, and first of all what a writer that failed left half written."""
        files = [(entry.stat(), Path(entry.path)) for entry in _entries(self._folder)]
        excess = sum(status.st_size for status, _ in files) + wanted_bytes - self._maximum_bytes
        for status, path in sorted(files, key=lambda file: (file[1].suffix != ".tmp", file[0].st_mtime_ns)):
            if excess <= 0 and path.suffix != ".tmp":
                return
            path.unlink(missing_ok=True)
            excess -= status.st_size

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer at a time keeps the bound; readers need no lock, as a copy is whole or not there."""
        with (self._folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if entry.name != ".lock"]
