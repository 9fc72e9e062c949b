"""The datatypes of the Open Inference Protocol, and tensors of them as float32 rows.

Models take FP32. Every other number is cast to it: FP64 to the nearest (beyond its range is refused), integers
likewise (beyond 2^24 not every one has its own), BOOL to 0 and 1, FP16 and BF16 exactly.
"""

from itertools import chain
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from core.errors import FieldProblem, InputInvalid, Malformed

Array = NDArray[np.float32]
INPUT = "input"
"""What every model's one input is called."""
DTYPES: dict[str, str] = {
    "BOOL": "|b1",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
BYTES_OF = {name: np.dtype(dtype).itemsize for name, dtype in DTYPES.items()} | {"BF16": 2}
BINARY_ONLY = frozenset(("FP16", "BF16"))
SHOWN_CHARACTERS = 40


def from_binary(content: memoryview, datatype: str, shape: tuple[int, ...], where: str) -> Array:
    """float32 `shape`, a view of `content` where that is FP32 already; both were checked to have one size."""
    if datatype == "BF16":
        array = (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        array = np.frombuffer(content, DTYPES[datatype])
    if datatype == "FP32":
        return array.reshape(shape)  # whether they are finite is looked at a batch at a time
    if datatype == "BOOL" and (np.frombuffer(content, np.uint8) > 1).any():
        raise Malformed(f"{where}: a BOOL is one byte, 0 or 1")
    return as_rows(array, shape, where)


def from_json(data: Any, datatype: str, shape: tuple[int, ...], where: str) -> Array:
    """float32 `shape` of a list that is flat or nested to that shape.

    Raises Malformed, or InputInvalid with the place of the first value that is none of its datatype.
    """
    if datatype in BINARY_ONLY:
        raise Malformed(f"{where}: {datatype} data via JSON is not supported. Please use the binary data format")
    values = _flat(data, shape, where)
    if len(values) != prod(shape):
        raise Malformed(f"{where}: {len(values)} values for shape {list(shape)}: give {prod(shape)}")
    kinds = (bool,) if datatype == "BOOL" else (int, float) if datatype.startswith("FP") else (int,)
    if not set(map(type, values)) <= set(kinds):
        index = next(i for i, value in enumerate(values) if type(value) not in kinds)
        _refuse(where, index, shape, f"{_shown(values[index])} is no {datatype}")
    if datatype.startswith(("INT", "UINT")):
        _refuse_outside(values, datatype, shape, where)
    return as_rows(np.array(values, dtype=np.float64), shape, where)


def as_rows(array: NDArray[Any], shape: tuple[int, ...], where: str) -> Array:
    """float32 `shape`. Raises InputInvalid with row and column of the first value that is not finite as that."""
    with np.errstate(over="ignore"):
        rows = array.astype(np.float32, copy=False)
    finite = np.isfinite(rows)
    if not finite.all():
        index = int(finite.argmin())
        _refuse(where, index, shape, f"{array.reshape(-1)[index]} is not finite as a 32-bit float")
    return rows.reshape(shape)


def parameters_of(owner: dict[str, Any], where: str) -> dict[str, Any]:
    """The `parameters` of a request, or of one of its tensors. Raises Malformed."""
    parameters = owner.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise Malformed(f"{where}: parameters is no object")
    if not all(isinstance(value, str | int | float | bool) for value in parameters.values()):
        raise Malformed(f"{where}: a parameter is a string, a number or a boolean")
    return parameters


def place_of(index: int, shape: tuple[int, ...]) -> str:
    """For instance `row 2, column 17`, or `row 2, position [0, 3, 4]`."""
    row, *rest = (int(part) for part in np.unravel_index(index, shape))
    return f"row {row}, column {rest[0]}" if len(rest) == 1 else f"row {row}, position {rest}"


def bytes_elements(content: memoryview, where: str, maximum: int) -> list[bytes]:
    """Elements of a BYTES tensor: each its length, four bytes little-endian, and itself."""
    elements: list[bytes] = []
    place = 0
    while place < len(content):
        size = int.from_bytes(content[place : place + 4], "little")
        if place + 4 + size > len(content):
            raise Malformed(f"{where}: element {len(elements)} is cut off: its length and the rest do not agree")
        if len(elements) == maximum:
            raise Malformed(f"{where}: more elements than its shape has")
        elements.append(bytes(content[place + 4 : place + 4 + size]))
        place += 4 + size
    return elements


def to_bytes_elements(texts: list[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


def _flat(data: Any, shape: tuple[int, ...], where: str) -> list[Any]:
    if not isinstance(data, list):
        raise Malformed(f'{where}: give the values as a list "data"')
    if not data or type(data[0]) is not list:
        return data
    values = data
    for depth, size in enumerate(shape):
        wrong = [value for value in values if type(value) is not list] if depth else []
        if wrong or (depth == 0 and len(values) != size):
            raise Malformed(f"{where}: the data is neither flat nor nested to shape {list(shape)}")
        if depth:
            if any(len(value) != size for value in values):
                raise Malformed(f"{where}: the data is neither flat nor nested to shape {list(shape)}")
            values = list(chain.from_iterable(values))
    return values


def _refuse_outside(values: list[int], datatype: str, shape: tuple[int, ...], where: str) -> None:
    limits = np.iinfo(DTYPES[datatype])
    lowest, highest = int(limits.min), int(limits.max)
    if values and not (lowest <= min(values) and max(values) <= highest):
        index = next(i for i, value in enumerate(values) if not lowest <= value <= highest)
        _refuse(where, index, shape, f"{values[index]} is no {datatype}")


def _refuse(where: str, index: int, shape: tuple[int, ...], message: str) -> NoReturn:
    told = f"{where}: {place_of(index, shape)}: {message}"
    raise InputInvalid(told, (FieldProblem(where, "not_finite" if "finite" in message else "bad_value", told),))


def _shown(value: Any) -> str:
    return repr(value)[:SHOWN_CHARACTERS]
