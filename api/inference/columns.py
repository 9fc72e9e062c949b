"""An infer request with a tensor for each column of a table, its texts as BYTES: how data frames are sent."""

from typing import Any

from api.inference.categories import by_column
from api.inference.rows import array_of
from api.inference.tensors import BYTES_OF, INPUT, Array, bytes_elements, from_binary, from_json, parameters_of
from core.errors import Malformed


def column_names(model: Any) -> tuple[str, ...]:
    """Of the table that a model was trained on; of other models none."""
    return tuple(field["name"] for field in model.fields) or tuple(model.columns)


def is_by_column(tensors: list[dict[str, Any]], model: Any) -> bool:
    """A table may have a column that is called as the one input of all models is: alone, it is that."""
    known = {*column_names(model), *model.columns}
    names = [name for tensor in tensors if isinstance(name := tensor.get("name"), str)]
    return any(name in known for name in names) and names != [INPUT]


def stated_rows(tensor: dict[str, Any], where: str) -> int:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or len(shape) not in (1, 2) or not all(type(size) is int for size in shape):
        raise Malformed(f"{where}: a column has the shape [rows] or [rows, 1]")
    if shape[0] < 1 or shape[1:] not in ([], [1]):
        raise Malformed(f"{where}: unexpected shape {shape}: a column has the shape [rows] or [rows, 1]")
    return int(shape[0])


def rows_by_column(tensors: list[dict[str, Any]], rest: memoryview, model: Any) -> Array:
    """float32 (rows, columns of the network), out of columns of equal length that are all there, in any order.

    `rest` are the tensors' bytes, in order. Raises Malformed, InputInvalid.
    """
    known = {*column_names(model), *model.columns}
    given: dict[str, list[Any]] = {}
    rows, place = stated_rows(tensors[0], "the first input"), 0
    for tensor in tensors:
        name = tensor.get("name")
        if not isinstance(name, str) or name not in known:
            raise Malformed(f"inputs: unexpected input {str(name)[:80]!r}: this model has {', '.join(sorted(known))}")
        where = f"input {name!r}"
        if name in given:
            raise Malformed(f"{where}: it is there twice")
        if stated_rows(tensor, where) != rows:
            raise Malformed(f"{where}: {stated_rows(tensor, where)} rows, and the first input has {rows}")
        content = _content(tensor, rest[place:], where)
        given[name] = _values(tensor, content, rows, where)
        place += len(content) if content is not None else 0
    if place != len(rest):
        raise Malformed(f"{len(rest)} bytes follow the header, and the inputs have {place}: give binary_data_size")
    objects = [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)]
    return array_of(by_column(objects, model.fields, model.columns), model.shape, model.columns)


def _content(tensor: dict[str, Any], rest: memoryview, where: str) -> memoryview | None:
    """The tensor's own bytes; None where its data stand in the header."""
    size = parameters_of(tensor, where).get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or not 0 <= size <= len(rest):
        raise Malformed(f"{where}: binary_data_size {str(size)[:40]}, and {len(rest)} bytes follow")
    if "data" in tensor:
        raise Malformed(f"{where}: data and binary_data_size exclude each other: give one of them")
    return rest[:size]


def _values(tensor: dict[str, Any], content: memoryview | None, rows: int, where: str) -> list[Any]:
    datatype = tensor.get("datatype")
    if datatype == "BYTES":
        return _texts(tensor, content, rows, where)
    if not isinstance(datatype, str) or datatype not in BYTES_OF:
        known = ", ".join(("BYTES", *BYTES_OF))
        raise Malformed(f"{where}: unknown datatype {str(datatype)[:80]!r}: give one of {known}")
    if content is None:
        return from_json(tensor.get("data"), datatype, (rows, 1), where).reshape(-1).tolist()
    if len(content) != rows * BYTES_OF[datatype]:
        raise Malformed(f"{where}: {len(content)} bytes for {rows} rows of {datatype}")
    return from_binary(content, datatype, (rows, 1), where).reshape(-1).tolist()


def _texts(tensor: dict[str, Any], content: memoryview | None, rows: int, where: str) -> list[Any]:
    if content is None:
        data = tensor.get("data")
        nested = isinstance(data, list) and all(isinstance(item, list) and len(item) == 1 for item in data)
        texts = [item[0] for item in data] if nested and data else data
    else:
        try:
            texts = [bytes(element).decode() for element in bytes_elements(content, where, rows)]
        except UnicodeDecodeError:
            raise Malformed(f"{where}: a text is not UTF-8") from None
    if not isinstance(texts, list) or len(texts) != rows or not all(isinstance(text, str) for text in texts):
        raise Malformed(f"{where}: give {rows} texts")
    return texts
