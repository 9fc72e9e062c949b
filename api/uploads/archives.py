"""Arrays out of somebody else's .npz file: each header is judged before a byte is unpacked, nothing is unpickled."""

import errno
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from api.uploads.contents import Array, refuse

MEMBERS = ("x", "y", "x_test", "y_test", "labels")
NUMBERS, TEXTS = "buif", "U"
MAXIMUM_ENTRIES_BYTES = 64 * 1024
"""Of the list of members: that of ours has some hundred bytes, and Python reads all of it at once."""
END = b"PK\x05\x06"
END_BYTES, LONGEST_COMMENT = 22, 65_535
LONGEST_HEADER = 10_000
PART_BYTES = 1024**2
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)


@dataclass(frozen=True)
class Member:
    name: str
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"


def read_arrays(file: Path, folder: Path, maximum_bytes: int) -> dict[str, Array]:
    """The arrays of `file` by name, unpacked into `folder` and mapped from there.

    Raises InputInvalid that names the member which is not what it must be.
    """
    with _told("", "is no .npz file that can be read"):
        _refuse_long_lists(file)
        with zipfile.ZipFile(file) as archive:
            members = {_name(info, archive): info for info in archive.infolist()}
            _refuse_missing(members)
            _refuse_bombs(members, maximum_bytes)
            judged = {name: _judged(archive, name, info) for name, info in members.items()}
            return {name: _unpacked(archive, judged[name], info, folder) for name, info in members.items()}


def _refuse_long_lists(file: Path) -> None:
    """An archive of a few bytes for each of a million members would fill the memory when it is opened."""
    with file.open("rb") as content:
        size = content.seek(0, 2)
        content.seek(max(0, size - END_BYTES - LONGEST_COMMENT))
        tail = content.read()
    place = tail.rfind(END)
    if place < 0:
        raise zipfile.BadZipFile("it has no list of members")
    (listed,) = struct.unpack_from("<I", tail, place + 12)
    if listed > MAXIMUM_ENTRIES_BYTES:
        refuse("/body", "too_many_members", f"has a list of members of {listed} bytes: send only {', '.join(MEMBERS)}")


def _name(info: zipfile.ZipInfo, archive: zipfile.ZipFile) -> str:
    name = info.filename.removesuffix(".npy")
    if name not in MEMBERS or name == info.filename:
        shown = info.filename[:80]
        refuse(f"/body/{shown}", "unknown_member", f"{shown!r} is not known: send arrays {', '.join(MEMBERS)}")
    if sum(other.filename == info.filename for other in archive.infolist()) > 1:
        refuse(f"/body/{name}", "member_twice", f"{name} is there twice: leave one out")
    return name


def _refuse_missing(members: dict[str, zipfile.ZipInfo]) -> None:
    for name, remedy in (("x", "the inputs, (N, …)"), ("y", "the targets, (N,)")):
        if name not in members:
            refuse(f"/body/{name}", "missing", f"{name} is missing: add {remedy}")
    for name, other in (("x_test", "y_test"), ("y_test", "x_test")):
        if name in members and other not in members:
            refuse(f"/body/{other}", "missing", f"{name} is there, and {other} is not: give both or none")


def _refuse_bombs(members: dict[str, zipfile.ZipInfo], maximum_bytes: int) -> None:
    unpacked = 0
    for name, info in members.items():
        unpacked += info.file_size
        if unpacked > maximum_bytes:
            refuse(
                f"/body/{name}",
                "too_large",
                f"{name} has {info.file_size} bytes unpacked, and a data set may have {maximum_bytes} in all: "
                "send fewer rows or a smaller type, or raise EVENKEEL_MAXIMUM_DATASET_BYTES",
            )


def _judged(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> Member:
    with _told(name, "is no array that can be read"), archive.open(info) as content:
        member = Member(name, *_header(content, name))
        start = content.tell()
    if member.dtype.hasobject:
        refuse(f"/body/{name}", "objects", f"{name} holds Python objects, which are never read: give numbers or texts")
    wanted = TEXTS if name == "labels" else NUMBERS if name.startswith("x") else NUMBERS + TEXTS
    if member.dtype.kind not in wanted or (member.dtype.kind == "f" and member.dtype.itemsize > 8):
        numbers = "numbers of at most 64 bits"
        what = {TEXTS: "texts", NUMBERS: numbers}.get(wanted, f"{numbers}, or texts")
        refuse(f"/body/{name}", "type", f"{name} holds {member.dtype}: give {what}")
    if not member.shape or 0 in member.shape:
        refuse(f"/body/{name}", "empty", f"{name} has the shape {member.shape}, and no row: give at least one")
    if prod(member.shape) * member.dtype.itemsize != info.file_size - start:
        refuse(f"/body/{name}", "size", f"{name} does not have the bytes that its header says: write it again")
    return member


def _header(content: IO[bytes], name: str) -> tuple[tuple[int, ...], "np.dtype[Any]"]:
    version = np.lib.format.read_magic(content)
    if version != (1, 0):
        refuse(f"/body/{name}", "version", f"{name} is in version {version} of the format: write it with numpy.savez")
    try:
        shape, _, dtype = np.lib.format.read_array_header_1_0(content, LONGEST_HEADER)
    except (TypeError, SyntaxError, TokenError, RecursionError, MemoryError, KeyError) as error:
        raise ValueError(str(error)) from None
    if min(shape, default=1) < 0:
        raise ValueError(f"its shape is {shape}")
    return shape, dtype


def _unpacked(archive: zipfile.ZipFile, member: Member, info: zipfile.ZipInfo, folder: Path) -> Array:
    target = folder / f"{member.name}.npy"
    with _told(member.name, "can not be unpacked"), archive.open(info) as content, target.open("wb") as file:
        while part := content.read(PART_BYTES):
            file.write(part)
        if file.tell() != info.file_size:
            raise EOFError("it ends too early")
    array: Array = np.load(target, mmap_mode="r", allow_pickle=False)
    return array


@contextmanager
def _told(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except (*UNREADABLE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of the disk; that one is of a wrong offset
            raise
        pointer = f"/body/{name}" if name else "/body"
        subject = name or "the body"
        refuse(pointer, "unreadable", f"{subject} {what} ({str(error) or type(error).__name__}): write it again")
