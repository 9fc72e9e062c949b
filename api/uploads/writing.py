"""Contents as one safetensors file: what a trainer maps into its memory, whatever was uploaded."""

import json
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from api.uploads.contents import Array, Contents, chunks

DTYPES = {"uint8": "U8", "float32": "F32", "float64": "F64", "int64": "I64"}


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
    arrays = dict(sorted(there.items(), key=lambda item: -item[1].dtype.itemsize))
    with file.open("wb") as target:
        target.write(_header(arrays, contents))
        for array in arrays.values():
            _write(array, target)


def _header(arrays: dict[str, Array], contents: Contents) -> bytes:
    named = {"labels": contents.labels, "columns": contents.columns, "fields": contents.fields}
    header: dict[str, Any] = {"__metadata__": {name: json.dumps(value) for name, value in named.items()}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + prod(array.shape) * array.dtype.itemsize
        header[name] = {"dtype": DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (
        -len(text) % 8
    )  # so that every tensor begins at a multiple of 8 bytes, if those before it end at one
    return len(text).to_bytes(8, "little") + text


def _write(array: Array, target: BinaryIO) -> None:
    little = array.dtype.newbyteorder("<")
    for part in chunks(array):
        target.write(np.ascontiguousarray(array[part], little).data)
