"""Artifact store: bytes under names, over fsspec. Bytes first, then the row that names them."""

import hashlib
import importlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from core.artifact_cache import ArtifactCache
from core.artifact_files import Files
from core.errors import StorageAway, StorageFailed

PART_BYTES = 32 * 1024**2
OBJECT_STORE = "core.object_store"  # by name: s3fs takes its time to load, and only S3 needs it


@dataclass(frozen=True)
class Artifact:
    """`name` is the path inside the store; `sha256` is of the whole content, in hexadecimal."""

    name: str
    sha256: str
    bytes: int


class Storage(Protocol):
    """What keeps the bytes. `failures` are the errors that its methods raise when they can not; among them are
    `refusals`, of somebody who may not. `away`: nobody was there to say whether they can."""

    failures: tuple[type[Exception], ...]
    refusals: tuple[type[Exception], ...]
    remote: bool

    def write(self, name: str, content: bytes) -> None: ...
    def read(self, name: str) -> bytes: ...
    def write_file(self, name: str, file: Path) -> None: ...
    def size(self, name: str) -> int: ...
    def read_part(self, name: str, start: int, end: int) -> bytes: ...
    def delete(self, name: str) -> None: ...
    def names(self, prefix: str) -> list[str]: ...
    def away(self, error: Exception) -> bool: ...
    def remedy(self, error: Exception) -> str: ...
    def close(self) -> None: ...


class ArtifactStore:
    """A folder or an object store. Names come from the server only, never from a user.

    With `cache_dir`, copies of what an object store holds are kept there, up to `cache_bytes`; a folder, on
    this machine or mounted, needs none. Raises StorageFailed when a library for `url` is not installed; its
    methods raise StorageAway, which is one too, where asking again later may help.
    """

    def __init__(self, url: str, cache_dir: Path | None = None, cache_bytes: int = 0) -> None:
        self.url = url
        self._storage = _storage(url)
        cached = self._storage.remote and cache_dir is not None and cache_bytes > 0
        self._cache = ArtifactCache(cache_dir, cache_bytes) if cached and cache_dir else None

    def put(self, name: str, content: bytes) -> Artifact:
        """Writes `content` so that `name` holds all of it or does not exist, also after a power cut.

        Raises StorageFailed when the disk is full, the store refuses, or what it then holds is not `content`.
        """
        digest = hashlib.sha256(content).hexdigest()
        with self._errors("write", name):
            self._storage.write(name, content)
        if self._storage.remote:
            self._verify(name, digest)
        if self._cache:
            self._cache.put(digest, content)
        return Artifact(name, digest, len(content))

    def put_content(self, content: bytes, suffix: str) -> Artifact:
        """Content-addressed: the name is the digest, so equal bytes are stored once."""
        digest = hashlib.sha256(content).hexdigest()
        return self.put(f"content/{digest[:2]}/{digest}{suffix}", content)

    def get(self, name: str, sha256: str) -> bytes:
        """The content of `name`. Raises StorageFailed when it is missing or its digest differs."""
        kept = self._cache.get(sha256) if self._cache else None
        if kept is not None:
            return kept
        content = self._verify(name, sha256)
        if self._cache:
            self._cache.put(sha256, content)
        return content

    def put_file(self, name: str, file: Path) -> Artifact:
        """As `put`, for content that need not fit into memory."""
        digest = _digest_of(file)
        with self._errors("write", name):
            self._storage.write_file(name, file)
        if self._storage.remote:
            self._download(name, digest).close()
        return Artifact(name, digest, file.stat().st_size)

    def open(self, name: str, sha256: str) -> BinaryIO:
        """The content of `name` as an open file of this machine, for what need not fit into memory.

        Readable while it is open, also when its copy leaves the cache. Raises what `get` raises.
        """
        kept = self._cache.open(sha256) if self._cache else None
        if kept is None and isinstance(self._storage, Files) and not self._storage.remote:
            with self._errors("read", name):
                kept = self._storage.path_of(name).open("rb")
            with _closed_by_an_error(kept):
                _refuse_corrupt(name, hashlib.file_digest(kept, "sha256").hexdigest(), sha256)
        file = self._download(name, sha256) if kept is None else kept
        if self._cache and kept is None:
            self._cache.put_file(sha256, file, file.seek(0, os.SEEK_END))
        file.seek(0)
        return file

    def delete(self, name: str) -> None:
        """Removes `name`; nothing happens when it is already gone."""
        with self._errors("delete", name):
            self._storage.delete(name)

    def names(self, prefix: str) -> list[str]:
        """All names below the folder `prefix`, sorted."""
        with self._errors("list", prefix):
            return sorted(self._storage.names(prefix))

    def close(self) -> None:
        """Ends connections to an object store, if there are any."""
        self._storage.close()

    def _verify(self, name: str, sha256: str) -> bytes:
        """Reads `name` from the store itself. After a write too: the digest that an upload can carry along is
        not looked at by every store that speaks S3 (moto takes a wrong one and answers 200), while reading
        back proves the same on all, for a third of the upload's time (32 MiB: 0.09 s after 0.33 s)."""
        with self._errors("read", name):
            content = self._storage.read(name)
        _refuse_corrupt(name, hashlib.sha256(content).hexdigest(), sha256)
        return content

    def _download(self, name: str, sha256: str) -> BinaryIO:
        """A file without a name, so that whoever is killed leaves nothing behind."""
        digest = hashlib.sha256()
        file = cast(BinaryIO, tempfile.TemporaryFile(dir=self._cache.folder() if self._cache else None))  # noqa: SIM115
        with _closed_by_an_error(file):
            with self._errors("read", name):
                size = self._storage.size(name)
                for start in range(0, size, PART_BYTES):
                    part = self._storage.read_part(name, start, min(start + PART_BYTES, size))
                    digest.update(part)
                    file.write(part)
            _refuse_corrupt(name, digest.hexdigest(), sha256)
        return file

    @contextmanager
    def _errors(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except self._storage.failures as error:
            reason = getattr(error, "strerror", None) or str(error) or "it took too long"
            remedy = self._storage.remedy(error)
            hidden = action == "read" and isinstance(error, self._storage.refusals)
            kind = StorageAway if hidden or self._storage.away(error) else StorageFailed
            raise kind(f"can not {action} artifact {name}: {reason}{remedy and f'; {remedy}'}") from error


def _storage(url: str) -> Storage:
    if not url.startswith("s3://"):
        return Files(url)
    if not url.removeprefix("s3://").strip("/"):
        raise StorageFailed(f"EVENKEEL_ARTIFACT_URL={url!r} names no bucket: write s3://bucket/prefix")
    try:
        module = importlib.import_module(OBJECT_STORE)
    except ImportError as error:
        raise StorageFailed(
            f"EVENKEEL_ARTIFACT_URL={url!r} needs a package that is not installed ({error}): pip install 'evenkeel[s3]'"
        ) from error
    return cast(Storage, module.ObjectStore(url))


def _digest_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def _closed_by_an_error(file: BinaryIO) -> Iterator[None]:
    try:
        yield
    except BaseException:
        file.close()
        raise


def _refuse_corrupt(name: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise StorageFailed(f"artifact {name} is corrupt: its SHA-256 is not {wanted}")
