"""Data sets that users brought: one safetensors file, mapped into memory, so that trainers of a node share it."""

import json
import struct
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from core.artifacts import ArtifactStore
from core.errors import JobFailed
from core.spec.base import StoredFile
from core.spec.data import StoredDataset
from worker.messages import Order
from worker.trainer.files import DataFolder
from worker.trainer.patience import Patience
from worker.trainer.sources import RawData, Rows

DTYPES = {"U8": "<u1", "F32": "<f4", "F64": "<f8", "I64": "<i8"}


def data_folder(order: Order, store: ArtifactStore, patience: Patience) -> DataFolder:
    """The data of a node, with uploads out of `store`, which is waited for while it is away."""

    def opened(file: StoredFile) -> BinaryIO:
        return patience.insist(lambda: store.open(file.name, file.sha256))

    return DataFolder(Path(order.data_dir), order.data_mirror_url, opened)


def load_upload(stored: StoredDataset, folder: DataFolder) -> RawData:
    """The rows of `stored`.

    Raises JobFailed("storage_error") when the file does not hold what it must, and StorageFailed.
    """
    if folder.uploads is None:
        raise ValueError("this data folder knows no artifact store")
    with folder.uploads(stored.file) as file:
        try:
            return _raw(file, stored)
        except (ValueError, KeyError, struct.error) as error:
            message = f"{stored.file.name} does not hold the data set that it must ({error}): upload it again"
            raise JobFailed("storage_error", message) from error


def _raw(file: BinaryIO, stored: StoredDataset) -> RawData:
    (size,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(size))
    named = {name: json.loads(text) for name, text in header["__metadata__"].items()}
    test = stored.test_rows
    return RawData(
        stored.facts,
        _rows(file, header, 8 + size, "", stored.rows - (test or 0), stored),
        None if test is None else _rows(file, header, 8 + size, "test_", test, stored),
        tuple(named["labels"]),
        tuple(named["columns"]),
        tuple(named["fields"]) if any(one["categories"] for one in named["fields"]) else (),
    )


def _rows(file: BinaryIO, header: Any, start: int, prefix: str, rows: int, stored: StoredDataset) -> Rows:
    inputs = _mapped(file, header[f"{prefix}inputs"], start, (rows, *stored.input_shape))
    return Rows(inputs, _mapped(file, header[f"{prefix}targets"], start, (rows,)))


def _mapped(file: BinaryIO, entry: Any, start: int, shape: tuple[int, ...]) -> Any:
    """Copy-on-write, because torch warns about arrays that it can not write to; nothing is ever written."""
    if tuple(entry["shape"]) != shape:
        raise ValueError(f"an array has the shape {entry['shape']}, not {list(shape)}")
    dtype, offset = np.dtype(DTYPES[entry["dtype"]]), start + entry["data_offsets"][0]
    if entry["data_offsets"][1] - entry["data_offsets"][0] != prod(shape) * dtype.itemsize:
        raise ValueError("an array has not the bytes of its shape")
    return np.asarray(np.memmap(file, dtype, "c", offset, shape))
