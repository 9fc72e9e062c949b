"""Numbers out of JSON without a Python object for each: simdjson parses, and hands them over as one buffer.

Only the usual form of a request is read here. Whatever else comes gives None, and is read by `rows` or `wire`,
which see every value and say what is wrong with it; so both ways give one and the same array.
"""

from math import prod
from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

Array = NDArray[np.float32]
OPENING = ord("[")
UNUSUAL = (ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError)
"""What a document raises that is no JSON, or has something else where a list or an object usually stands."""


class FloatReader:
    """Its parser's memory is used again for each body; belongs to one thread."""

    def __init__(self) -> None:
        self._parser = simdjson.Parser()

    def rows(self, content: bytes, shape: tuple[int, ...], maximum_rows: int) -> Array | None:
        """float32 (n, *shape) of `{"rows": [[…], …]}` with flat rows of numbers, finite or not, or None."""
        try:
            root = self._parser.parse(content)
            if type(root) is not simdjson.Object or len(root) != 1:
                return None
            rows: Any = root["rows"]
            size, count = prod(shape), len(rows)
            if not 0 < count <= maximum_rows or any(len(row) != size for row in rows):
                return None
            return _floats(rows, content, count, (count, *shape), brackets=1 + count)
        except UNUSUAL:
            self._anew()
            return None

    def tensor(self, content: bytes, shape: tuple[int, ...], name: str) -> tuple[dict[str, Any], Array] | None:
        """The request without its data, and float32 (n, *shape), of an infer request with one float input, or None."""
        try:
            root: Any = self._parser.parse(content)
            tensors = root["inputs"]
            if len(tensors) != 1:
                return None
            tensor = tensors[0]
            stated = tensor["shape"].as_list()
            if tensor["name"] != name or tensor["datatype"] not in ("FP32", "FP64") or tuple(stated[1:]) != shape:
                return None
            if "binary_data_size" in tensor.get("parameters", {}):
                return None
            request = {key: _plain(root[key]) for key in root.keys() if key != "inputs"}  # noqa: SIM118
            return self._data(request, tensor, content, stated[0])
        except UNUSUAL:
            self._anew()
            return None

    def _data(
        self, request: dict[str, Any], tensor: Any, content: bytes, count: Any
    ) -> tuple[dict[str, Any], Array] | None:
        data = tensor["data"]
        shape = tuple(tensor["shape"].as_list())
        if type(count) is not int or count < 1 or not len(data):
            return None
        nested = type(data[0]) is simdjson.Array
        if nested and (len(data) != count or len(shape) != 2 or any(len(row) != shape[1] for row in data)):
            return None
        if not nested and len(data) != prod(shape):
            return None
        brackets = 3 + (count if nested else 0) + ("outputs" in request)
        array = _floats(data, content, count, shape, brackets)
        return None if array is None else (request, array)

    def _anew(self) -> None:
        """After an error: a traceback may hold on to parts of a document, and then its parser takes no other."""
        self._parser = simdjson.Parser()


def _floats(numbers: Any, content: bytes, count: int, shape: tuple[int, ...], brackets: int) -> Array | None:
    """The numbers as float32, when there are as many as there should be, in no more lists, all finite."""
    if np.count_nonzero(np.frombuffer(content, np.uint8) == OPENING) != brackets:
        return None  # lists within rows, which the buffer would not show
    exact = np.frombuffer(numbers.as_buffer(of_type="d"), np.float64)
    if len(exact) != prod(shape):
        return None
    with np.errstate(over="ignore"):
        array = exact.astype(np.float32)
    return array.reshape(shape)


def _plain(value: Any) -> Any:
    if type(value) is simdjson.Object:
        return value.as_dict()
    return value.as_list() if type(value) is simdjson.Array else value
