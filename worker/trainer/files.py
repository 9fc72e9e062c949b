"""Files of a data source: found in the data folder, or downloaded once, checked and decoded once per node."""

import hashlib
import http.client
import math
import os
import secrets
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from core.errors import JobFailed, StorageFailed
from core.spec.base import StoredFile
from worker.trainer.idx import read_idx

PUBLISHERS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
}
DOWNLOAD_TIMEOUT_SECONDS = 30.0
"""Without a byte for so long, a download has failed."""
ABANDONED_SECONDS = 3600.0
"""A temporary file that nobody wrote to for so long was left by a trainer that was killed."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as its publisher offers it; `sha256` is of the file as it is transferred."""

    name: str
    sha256: str
    shape: tuple[int, ...]


Opener = Callable[[StoredFile], BinaryIO]


@dataclass(frozen=True)
class DataFolder:
    """Where a node keeps its data, and the mirror to ask for what is not there; None: the publisher."""

    path: Path
    mirror_url: str | None
    uploads: Opener | None = None
    """Opens a file of the artifact store, its digest checked: there lies what users brought."""

    def array(self, source: str, remote: RemoteFile) -> NDArray[np.uint8]:
        """The decoded content of one IDX file, mapped into memory and shared by all trainers of the node.

        Raises JobFailed("invalid_data") for a file that does not hold what it must, StorageFailed
        when it is nowhere and can not be downloaded.
        """
        file = self._find(source, remote) or self._download(source, remote)
        stamp = file.stat()
        decoded = self.path / ".decoded" / source / f"{remote.name}.{stamp.st_size}-{stamp.st_mtime_ns}.npy"
        try:
            return _map(decoded, remote.shape)
        except (OSError, ValueError, EOFError):
            array = _read(file, remote.shape)
        try:
            with _replacing(decoded) as temporary, temporary.open("wb") as target:
                np.save(target, array, allow_pickle=False)
            return _map(decoded, remote.shape)
        except OSError:
            return array.copy()  # a folder that can only be read: this trainer decodes for itself

    def _find(self, source: str, remote: RemoteFile) -> Path | None:
        plain = remote.name.removesuffix(".gz")
        for name in (remote.name, plain):
            file = self.path / source / name
            if file.is_file():
                return file
            file = self.path / name
            # mnist and fashion_mnist use the same file names, so without a folder of its own a file must prove itself.
            if file.is_file() and (self.path.name == source or _sha256(file) == remote.sha256):
                return file
        return None

    def _download(self, source: str, remote: RemoteFile) -> Path:
        base = f"{self.mirror_url.rstrip('/')}/{source}" if self.mirror_url else PUBLISHERS[source]
        url = f"{base}/{remote.name}"
        target = self.path / source / remote.name
        remedy = f"put the IDX files into {target.parent}, or set EVENKEEL_DATA_MIRROR_URL to a mirror that has them"
        try:
            with _replacing(target) as temporary:
                _fetch(url, temporary, _most_bytes(remote.shape))
                found = _sha256(temporary)
                if found != remote.sha256:
                    raise StorageFailed(f"{url} has the SHA-256 {found}, not {remote.sha256}: {remedy}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise StorageFailed(f"can not download {url} to {target.parent}: {error}; {remedy}") from error
        return target


def _fetch(url: str, target: Path, most_bytes: int) -> None:
    """Raises ValueError when there is more to come: a mirror that never ends must not fill the disk."""
    with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as reply, target.open("wb") as file:
        while chunk := reply.read(2**16):
            if file.tell() + len(chunk) > most_bytes:
                raise ValueError(f"it is larger than {most_bytes} bytes")
            file.write(chunk)


def _most_bytes(shape: tuple[int, ...]) -> int:
    """What an IDX file of `shape` takes at most, zipped or not; gzip adds a thousandth to what it can not shrink."""
    return math.prod(shape) * 1001 // 1000 + 2**16


def _read(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        return read_idx(file, shape)
    except (ValueError, OSError) as error:
        raise JobFailed("invalid_data", f"{file}: {error}; replace the file") from error


def _map(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Copy-on-write, because torch warns about arrays that it can not write to; nothing is ever written."""
    array = np.load(file, mmap_mode="c", allow_pickle=False)
    if array.shape != shape or array.dtype != np.uint8:
        raise ValueError(f"{file} holds {array.dtype} {array.shape}")
    return np.asarray(array)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary file beside `target` that takes its name when the block ends well, and is gone otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())  # else a power cut may leave zeros under the name, which nobody checks again
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_abandoned(target: Path) -> None:
    for temporary in target.parent.glob(f".{target.name}.*.tmp"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > ABANDONED_SECONDS:
                temporary.unlink()
