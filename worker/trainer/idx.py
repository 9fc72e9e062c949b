"""IDX files, plain or gzipped: a four-byte magic, big-endian sizes, then one byte a value."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array of `path`, which must hold unsigned bytes of exactly `shape`.

    Raises ValueError saying what is wrong with the content, OSError when the file can not be read.
    """
    header_bytes = 4 + 4 * len(shape)
    expected = header_bytes + math.prod(shape)
    try:
        with _open(path) as file:
            content = file.read(expected + 1)  # never more: a small gzip file can unpack to a huge one
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"the gzip stream is damaged ({error})") from error
    _check_header(content, shape)
    if len(content) < expected:
        raise ValueError(f"ends after {len(content)} of {expected} bytes")
    if len(content) > expected:
        raise ValueError(f"goes on after the {expected} bytes that its header announces")
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path, "rb")) if zipped else path.open("rb")


def _check_header(content: bytes, shape: tuple[int, ...]) -> None:
    if len(content) < 4 + 4 * len(shape):
        raise ValueError(f"is too short for an IDX header ({len(content)} bytes)")
    zeros, kind, axes = struct.unpack_from(">HBB", content)
    if zeros != 0 or kind != _UNSIGNED_BYTE:
        raise ValueError(f"is not an IDX file of unsigned bytes (it begins with {content[:4].hex()})")
    if axes != len(shape):
        raise ValueError(f"has {axes} axes, not {len(shape)}")
    sizes = struct.unpack_from(f">{axes}I", content, 4)
    if sizes != shape:
        raise ValueError(f"has the shape {'×'.join(map(str, sizes))}, not {'×'.join(map(str, shape))}")
