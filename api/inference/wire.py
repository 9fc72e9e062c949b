"""The infer request and its answer, as the Open Inference Protocol v2 has them, JSON and binary.

Sizes are checked against each other and against the model before any array is made.
"""

from math import prod
from typing import Any, NamedTuple

import numpy as np
import orjson

from api.inference.batching import DEFAULT_PRIORITY
from api.inference.columns import is_by_column, rows_by_column, stated_rows
from api.inference.floats import FloatReader
from api.inference.lanes import Array, Lane
from api.inference.pictures import pictures
from api.inference.tensors import BYTES_OF, INPUT, bytes_elements, from_binary, from_json, parameters_of
from core.errors import Malformed, TooLarge

LARGEST_PRIORITY = 1000
PLANS, PLAN_BYTES = 256, 2048


class Output(NamedTuple):
    """An output that a request asks for."""

    place: int
    name: str
    binary: bool
    classes: int  # 0: the tensor itself; else the highest so many, with their labels


class InferRequest(NamedTuple):
    rows: Array
    id: str | None
    outputs: tuple[Output, ...]
    priority: int = DEFAULT_PRIORITY
    timeout_seconds: float | None = None


class InferReader:
    """Reads bodies; belongs to one thread."""

    def __init__(self, maximum_rows: int) -> None:
        self._floats = FloatReader()
        self._maximum_rows = maximum_rows

    def read(self, body: bytes, header_length: bytes | None, lane: Lane) -> InferRequest:
        """Raises Malformed, InputInvalid, TooLarge."""
        if header_length is None:
            quick = self._floats.tensor(body, lane.model.shape, INPUT)
            if quick is not None:
                self._refuse_too_many(len(quick[1]))
                return _request(quick[0], quick[1], lane)
            return self._exactly(_header(body), memoryview(b""), lane)
        length = _header_size(header_length, len(body))
        if length == 0:
            return self._raw(body, lane)
        head = body[:length]
        plan = lane.plans.get(head)
        if plan is not None and len(body) - length == plan[1]:
            rows = np.frombuffer(body, np.float32, offset=length).reshape(plan[2])
            return InferRequest(rows, *plan[0])
        header = _header(head)
        request = self._exactly(header, memoryview(body)[length:], lane)
        (first, *others) = header["inputs"]
        if (
            length < PLAN_BYTES
            and first["name"] == INPUT
            and first["datatype"] == "FP32"
            and len(body) > length
            and not others
        ):
            _keep_plan(lane, head, request, len(body) - length)
        return request

    def _exactly(self, header: dict[str, Any], rest: memoryview, lane: Lane) -> InferRequest:
        tensors = header.get("inputs")
        if not isinstance(tensors, list) or not tensors or not all(isinstance(tensor, dict) for tensor in tensors):
            raise Malformed(f'inputs: give [{{"name": "{INPUT}", …}}]')
        if is_by_column(tensors, lane.model):
            self._refuse_too_many(stated_rows(tensors[0], "the first input"))
            return _request(header, rows_by_column(tensors, rest, lane.model), lane)
        if len(tensors) != 1:
            raise Malformed(f'inputs: this model takes one input: give [{{"name": "{INPUT}", …}}]')
        return _request(header, self._input(tensors[0], rest, lane), lane)

    def _input(self, tensor: dict[str, Any], rest: memoryview, lane: Lane) -> Array:
        where = f"input {INPUT!r}"
        if tensor.get("name") != INPUT:
            raise Malformed(f"inputs: unexpected input {str(tensor.get('name'))[:80]!r}: this model takes {INPUT!r}")
        datatype = tensor.get("datatype")
        if not isinstance(datatype, str) or (datatype != "BYTES" and datatype not in BYTES_OF):
            raise Malformed(f"{where}: unknown datatype {str(datatype)[:80]!r}: give one of {', '.join(BYTES_OF)}")
        shape = self._shape(tensor.get("shape"), lane.model.shape, datatype == "BYTES", where)
        size = parameters_of(tensor, where).get("binary_data_size")
        if size is None and len(rest):
            raise Malformed(f"{where}: {len(rest)} bytes follow the header: give binary_data_size")
        if size is not None and (type(size) is not int or size != len(rest)):
            raise Malformed(f"{where}: binary_data_size {size!r}, and {len(rest)} bytes follow the header")
        if size is not None and "data" in tensor:
            raise Malformed(f"{where}: data and binary_data_size exclude each other: give one of them")
        if datatype == "BYTES":
            return _pictures(tensor, rest if size is not None else None, shape[0], lane, where)
        if size is None:
            return from_json(tensor.get("data"), datatype, shape, where)
        if size != prod(shape) * BYTES_OF[datatype]:
            raise Malformed(f"{where}: {size} bytes for shape {list(shape)} of {datatype}")
        return from_binary(rest, datatype, shape, where)

    def _shape(self, stated: Any, wanted: tuple[int, ...], encoded: bool, where: str) -> tuple[int, ...]:
        if not isinstance(stated, list) or not all(type(size) is int and size >= 0 for size in stated):
            raise Malformed(f"{where}: the shape is no list of sizes: give {[-1, *wanted]}, -1 being the rows")
        fixed = () if encoded else wanted
        if not stated or (tuple(stated[1:]) != fixed and not (encoded and stated[1:] == [1])):
            raise Malformed(f"{where}: unexpected shape {stated[:8]}: expected {[-1, *fixed]}")
        if stated[0] == 0:
            raise Malformed(f"{where}: no rows: give at least one")
        self._refuse_too_many(stated[0])
        return (stated[0], *fixed)

    def _raw(self, body: bytes, lane: Lane) -> InferRequest:
        shape = (1, *lane.model.shape)
        if len(body) != prod(shape) * 4:
            raise Malformed(f"a raw body is one row of {prod(shape)} FP32 values, {prod(shape) * 4} bytes: {len(body)}")
        rows = from_binary(memoryview(body), "FP32", shape, f"input {INPUT!r}")
        return InferRequest(rows, None, _all_outputs(lane, True))

    def _refuse_too_many(self, rows: int) -> None:
        if rows > self._maximum_rows:
            raise TooLarge(f"{rows} rows, and one request may have {self._maximum_rows}: send several")


def _keep_plan(lane: Lane, head: bytes, request: InferRequest, size: int) -> None:
    """A client says the same of every tensor that it sends: its header is understood once."""
    if len(lane.plans) >= PLANS:
        lane.plans.clear()
    lane.plans[head] = (request[1:], size, request.rows.shape)


def _header_size(text: bytes, total: int) -> int:
    if not text.isdigit() and not (text[:1] == b"-" and text[1:].isdigit()):
        raise Malformed("Inference-Header-Content-Length is no number: give the bytes of the JSON header")
    length = int(text[:20])
    if not 0 <= length <= total:
        raise Malformed(f"inference header size should be in range (0, {total}), got: {length}")
    return length


def _header(content: bytes) -> dict[str, Any]:
    try:
        header = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the request is not JSON: {error}. NaN and infinity are no JSON") from None
    if not isinstance(header, dict):
        raise Malformed('the request is no JSON object: give {"inputs": […]}')
    return header


def _pictures(tensor: dict[str, Any], rest: memoryview | None, count: int, lane: Lane, where: str) -> Array:
    if rest is None:
        data = tensor.get("data")
        if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
            raise Malformed(f"{where}: give BYTES as a list of base64 strings, or as binary data")
        elements: list[bytes | str] = list(data)
    else:
        elements = list(bytes_elements(rest, where, count))
    if len(elements) != count:
        raise Malformed(f"{where}: {len(elements)} elements for shape [{count}]")
    return pictures(elements, lane.model, where)


def _request(header: dict[str, Any], rows: Array, lane: Lane) -> InferRequest:
    identity = header.get("id")
    if identity is not None and not isinstance(identity, str):
        raise Malformed("id: give a string")
    if header.keys() <= {"id"}:
        return InferRequest(rows, identity, _all_outputs(lane, False))
    parameters = parameters_of(header, "request")
    binary = parameters.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise Malformed("parameters: binary_data_output is no boolean")
    priority = _integer(parameters, "priority", 0, LARGEST_PRIORITY) or DEFAULT_PRIORITY
    timeout = _integer(parameters, "timeout", 0, 10**12)
    return InferRequest(
        rows, identity, _outputs(header.get("outputs"), lane, binary), priority, timeout / 1e6 if timeout else None
    )


def _integer(parameters: dict[str, Any], name: str, lowest: int, highest: int) -> int:
    value = parameters.get(name, 0)
    if type(value) is not int or not lowest <= value <= highest:
        raise Malformed(f"parameters: {name} is no integer from {lowest} to {highest}")
    return value


def _all_outputs(lane: Lane, binary: bool) -> tuple[Output, ...]:
    return tuple(Output(index, name, binary, 0) for index, name in enumerate(lane.model.outputs))


def _outputs(wanted: Any, lane: Lane, binary: bool) -> tuple[Output, ...]:
    if wanted is None or wanted == []:
        return _all_outputs(lane, binary)
    if not isinstance(wanted, list) or not all(isinstance(item, dict) for item in wanted):
        raise Malformed('outputs: give a list of {"name": …}')
    names = [item.get("name") for item in wanted[: len(lane.model.outputs) + 1]]
    if len(names) > len(lane.model.outputs) or any(names.count(name) > 1 for name in names):
        raise Malformed("outputs: an output is asked for twice, or there is no such output")
    return tuple(_output(item, lane, binary) for item in wanted)


def _output(item: dict[str, Any], lane: Lane, binary: bool) -> Output:
    names = lane.model.outputs
    name = item.get("name")
    if not isinstance(name, str) or name not in names:
        raise Malformed(f"outputs: unexpected output {str(name)[:80]!r}: this model has {', '.join(names)}")
    parameters = parameters_of(item, f"output {name!r}")
    if not isinstance(parameters.get("binary_data", binary), bool):
        raise Malformed(f"output {name!r}: binary_data is no boolean")
    classes = _integer(parameters, "classification", 0, 2**31 - 1)
    index = names.index(name)
    return Output(index, name, parameters.get("binary_data", binary), min(classes, lane.model.widths[index]))
