"""Artifact store: bytes under names, over fsspec. Bytes first, then the row that names them."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from core.errors import StorageFailed


@dataclass(frozen=True)
class Artifact:
    """`name` is the path inside the store; `sha256` is of the whole content, in hexadecimal."""

    name: str
    sha256: str
    bytes: int


class ArtifactStore:
    """A folder or an object store. Names come from the server only, never from a user."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._files, self._root = fsspec.core.url_to_fs(url)

    def put(self, name: str, content: bytes) -> Artifact:
        """Writes `content` so that `name` holds all of it or does not exist, also after a power cut.

        Raises StorageFailed when the disk is full or the store refuses.
        """
        with _storage_errors("write", name):
            if isinstance(self._files, LocalFileSystem):
                _write_durably(Path(self._path(name)), content)
            else:
                self._files.pipe_file(self._path(name), content)
        return Artifact(name, hashlib.sha256(content).hexdigest(), len(content))

    def put_content(self, content: bytes, suffix: str) -> Artifact:
        """Content-addressed: the name is the digest, so equal bytes are stored once."""
        digest = hashlib.sha256(content).hexdigest()
        return self.put(f"content/{digest[:2]}/{digest}{suffix}", content)

    def get(self, name: str, sha256: str) -> bytes:
        """The content of `name`. Raises StorageFailed when it is missing or its digest differs."""
        with _storage_errors("read", name):
            content: bytes = self._files.cat_file(self._path(name))
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StorageFailed(f"artifact {name} is corrupt: its SHA-256 is not {sha256}")
        return content

    def delete(self, name: str) -> None:
        """Removes `name`; nothing happens when it is already gone."""
        with _storage_errors("delete", name):
            if self._files.exists(self._path(name)):
                self._files.rm_file(self._path(name))

    def names(self, prefix: str) -> list[str]:
        """All names below the folder `prefix`, sorted."""
        with _storage_errors("list", prefix):
            if not self._files.exists(self._path(prefix)):
                return []
            found = self._files.find(self._path(prefix))
        return sorted(path[len(self._root.rstrip("/")) + 1 :] for path in found)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


@contextmanager
def _storage_errors(action: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"can not {action} artifact {name}: {error.strerror or error}") from error


def _write_durably(target: Path, content: bytes) -> None:
    """Temporary file → fsync → rename → fsync folder; the temporary file never survives an error."""
    _make_durably(target.parent)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
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
