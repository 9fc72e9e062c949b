"""Data sets that one brings: uploaded, listed, looked at, deleted."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self
from urllib.parse import quote

from evenkeel.errors import Invalid
from evenkeel.transport import Transport

PATH = "/v1/datasets"
UPLOAD_SECONDS = 1800.0
"""The service reads all of it before it answers."""
ZIPPED = "application/octet-stream"
MEDIA = {".csv": "text/csv", ".npz": ZIPPED}
Raw = Mapping[str, Any]


@dataclass(frozen=True)
class DatasetVersion:
    """`input_shape` is of one row; `labels` by class number, none of a regression; `columns` of a table with names."""

    version: int
    sha256: str
    bytes: int
    kind: Literal["image", "table", "sequence"]
    task: Literal["classification", "regression"]
    input_shape: tuple[int, ...]
    rows: int
    test_rows: int | None
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    created_at: datetime
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: Raw) -> Self:
        return cls(
            raw["version"],
            raw["sha256"],
            raw["bytes"],
            raw["kind"],
            raw["task"],
            tuple(raw["input_shape"]),
            raw["rows"],
            raw.get("test_rows"),
            tuple(raw.get("labels") or ()),
            tuple(raw.get("columns") or ()),
            datetime.fromisoformat(raw["created_at"]),
            raw,
        )


@dataclass(frozen=True)
class Dataset:
    """`newest` is what a job gets that names no version; `versions`: all that are there, the newest first."""

    id: str
    name: str
    newest: DatasetVersion
    versions: tuple[int, ...]
    created_at: datetime
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: Raw) -> Self:
        return cls(
            raw["id"],
            raw["name"],
            DatasetVersion.read(raw["newest"]),
            tuple(raw["versions"]),
            datetime.fromisoformat(raw["created_at"]),
            raw,
        )

    def spec(self, **options: Any) -> dict[str, Any]:
        """`dataset` of a job, of this version whatever is uploaded later; `options`: scaling, test_fraction, …"""
        return {"source": "uploaded", "name": self.name, "version": self.newest.version, **options}


Listed = list[Dataset]
Versions = list[DatasetVersion]


class Datasets:
    """`client.datasets`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        name: str,
        data: Path | str | Mapping[str, Any],
        *,
        task: Literal["classification", "regression"] | None = None,
        kind: Literal["image", "table", "sequence"] | None = None,
        target: str | None = None,
        categories: Sequence[str] | None = None,
    ) -> Dataset:
        """The data set, with a new version unless its newest holds just that already; so it is safe to repeat.

        `data`: an .npz or .csv file, or arrays by name: `x`, `y`, and optionally `x_test`, `y_test`, `labels`.
        `target` and `categories` are columns of a CSV file. Raises Invalid with row and column of what is wrong.
        """
        params = {
            "name": name,
            "task": task,
            "kind": kind,
            "target": target,
            "categories": list(categories) if categories else None,
        }
        media, opened = _content(data)
        answer = self._transport.send(
            "POST",
            PATH,
            params=params,
            headers={"Content-Type": media},
            content=opened,
            timeout_seconds=UPLOAD_SECONDS,
        )
        return Dataset.read(answer.json())

    def list(self, limit: int = 100) -> Listed:
        """The newest first."""
        return [Dataset.read(raw) for raw in self._transport.pages(PATH, {}, limit)]

    def get(self, name: str) -> Dataset:
        return Dataset.read(self._transport.json("GET", _path(name)))

    def versions(self, name: str) -> Versions:
        """The newest first."""
        return [DatasetVersion.read(raw) for raw in self._transport.json("GET", f"{_path(name)}/versions")["data"]]

    def delete(self, name: str, version: int | None = None) -> None:
        """All of it, or one version. Raises Conflict while a job that has not ended needs it."""
        self._transport.send("DELETE", _path(name), params={"version": version})


def _content(data: Path | str | Mapping[str, Any]) -> tuple[str, Callable[[], BinaryIO]]:
    """(media type, what opens the content again for each try)."""
    if isinstance(data, Mapping):
        packed = _packed(data)
        return ZIPPED, lambda: io.BytesIO(packed)
    path = Path(data)
    media = MEDIA.get(path.suffix.lower())
    if media is None:
        raise Invalid(f"{path} is neither .npz nor .csv: save arrays by numpy.savez, or write a table as CSV")
    return media, lambda: path.open("rb")


def _packed(arrays: Mapping[str, Any]) -> bytes:
    """An .npz file of arrays, which this package makes without numpy."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                for part in _npy(name, array):
                    member.write(part)
    return packed.getvalue()


def _npy(name: str, array: Any) -> Iterator[bytes]:
    """The .npy format, version 1.0: a magic, the length of a header, the header, the values in C order."""
    if not all(hasattr(array, part) for part in ("dtype", "shape", "tobytes")):
        raise Invalid(f"{name} is {type(array).__name__}: give a numpy array, for instance numpy.asarray({name})")
    if array.dtype.hasobject:
        raise Invalid(f"{name} holds Python objects, which are never read: make it an array of numbers or texts")
    shape = "".join(f"{int(size)}, " for size in array.shape)
    header = f"{{'descr': {json.dumps(array.dtype.str)}, 'fortran_order': False, 'shape': ({shape}), }}"
    padding = " " * (-(10 + len(header) + 1) % 64)
    text = f"{header}{padding}\n".encode("latin1")
    yield b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    yield array.tobytes()


def _path(name: str) -> str:
    return f"{PATH}/{quote(name, safe='')}"
