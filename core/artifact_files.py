"""Artifacts in a folder: of this machine, of a mount, or any other file system of fsspec."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

GONE_MOUNT = (errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH)


class Files:
    """Durable where it is a folder: what is written survives a power cut."""

    failures: tuple[type[Exception], ...] = (OSError,)
    refusals: tuple[type[Exception], ...] = (PermissionError,)

    def __init__(self, url: str) -> None:
        self._files, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self.remote = not isinstance(self._files, LocalFileSystem)

    def write(self, name: str, content: bytes) -> None:
        if self.remote:
            self._files.pipe_file(self._path(name), content)
        else:
            with _written_durably(self.path_of(name)) as target:
                target.write(content)

    def read(self, name: str) -> bytes:
        return cast(bytes, self._files.cat_file(self._path(name)))

    def write_file(self, name: str, file: Path) -> None:
        if self.remote:
            self._files.put_file(str(file), self._path(name))
        else:
            with _written_durably(self.path_of(name)) as target, file.open("rb") as source:
                shutil.copyfileobj(source, target)

    def size(self, name: str) -> int:
        return int(self._files.size(self._path(name)))

    def read_part(self, name: str, start: int, end: int) -> bytes:
        return cast(bytes, self._files.cat_file(self._path(name), start=start, end=end))

    def path_of(self, name: str) -> Path:
        """Of a file on this machine."""
        return Path(self._path(name))

    def delete(self, name: str) -> None:
        if self._files.exists(self._path(name)):
            self._files.rm_file(self._path(name))

    def names(self, prefix: str) -> list[str]:
        if not self._files.exists(self._path(prefix)):
            return []
        return [path[len(self._root) + 1 :] for path in self._files.find(self._path(prefix))]

    def away(self, error: Exception) -> bool:
        """A mount that hangs or is gone, and not a file of it that is."""
        if isinstance(error, FileNotFoundError):
            return not self._files.exists(self._root)
        return isinstance(error, TimeoutError | ConnectionError) or getattr(error, "errno", None) in GONE_MOUNT

    def remedy(self, error: Exception) -> str:
        if isinstance(error, FileNotFoundError) and self.away(error):
            return f"mount {self._root}, or make the folder if nothing is missed in it"
        return ""

    def close(self) -> None:
        pass

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


@contextmanager
def _written_durably(target: Path) -> Iterator[BinaryIO]:
    """Temporary file → fsync → rename → fsync folder; the temporary file never survives an error."""
    _make_durably(target.parent)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(target.parent)


def _make_durably(folder: Path) -> None:
    """A folder that is lost in a power cut takes the files in it along, however well they were written."""
    if not folder.is_dir():
        _make_durably(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
