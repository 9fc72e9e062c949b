"""Contents as one safetensors file: what a trainer maps into its memory, whatever was uploaded."""

import json
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from api.uploads.contents import Array, Contents, chunks

NAMES = {"uint8": "U8", "float32": "F32", "float64": "F64", "int64": "I64"}
BYTES = (np.bool_, np.uint8)
SMALL = (np.int8, np.int16, np.uint16, np.float16, np.float32)
"""Types whose values float32 holds all of."""


def write_contents(contents: Contents, file: Path) -> None:
    """Tensors `inputs`, `targets` and, with an official test set, `test_inputs`, `test_targets`; in the
    metadata, as JSON, `labels`, `columns` and `fields`. Equal contents, equal bytes."""
    tensors = {
        "inputs": contents.inputs,
        "targets": contents.targets,
        "test_inputs": contents.test_inputs,
        "test_targets": contents.test_targets,
    }
    there = {name: array for name, array in tensors.items() if array is not None}
    # The widest numbers first: each tensor then begins at a multiple of its own numbers' size.
    arrays = dict(sorted(there.items(), key=lambda item: -_dtype(item[0], item[1]).itemsize))
    with file.open("wb") as target:
        target.write(_header(arrays, contents))
        for name, array in arrays.items():
            _write(array, _dtype(name, array), target)


def _dtype(name: str, array: Array) -> "np.dtype[Any]":
    """Targets are float64, or int64 class numbers; inputs the smallest of three types that holds them."""
    if name.endswith("targets"):
        return np.dtype("<i8" if array.dtype.kind in "bui" else "<f8")
    if array.dtype.type in BYTES:
        return np.dtype("<u1")
    return np.dtype("<f4" if array.dtype.type in SMALL else "<f8")


def _header(arrays: dict[str, Array], contents: Contents) -> bytes:
    named = {"labels": contents.labels, "columns": contents.columns, "fields": contents.fields}
    header: dict[str, Any] = {"__metadata__": {name: json.dumps(value) for name, value in named.items()}}
    end = 0
    for name, array in arrays.items():
        dtype = _dtype(name, array)
        start, end = end, end + prod(array.shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype.name], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (
        -len(text) % 8
    )  # so that every tensor begins at a multiple of 8 bytes, if those before it end at one
    return len(text).to_bytes(8, "little") + text


def _write(array: Array, dtype: "np.dtype[Any]", target: BinaryIO) -> None:
    for part in chunks(array):
        target.write(np.ascontiguousarray(array[part], dtype).data)
