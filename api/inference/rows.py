"""Rows to predict: JSON in, one float32 array out, and an exact pointer to whatever can not be answered."""

from itertools import chain
from math import prod
from operator import itemgetter
from typing import Any, NoReturn

import numpy as np
import orjson
from numpy.typing import NDArray

from core.errors import FieldProblem, InputInvalid, Malformed

Array = NDArray[np.float32]
NUMBERS = frozenset((int, float))
SHOWN_CHARACTERS = 40


def parse_rows(content: bytes, maximum_rows: int) -> list[Any]:
    """The rows of a body. Raises Malformed when it is no JSON, InputInvalid when it is not `{"rows": […]}`."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        remedy = "NaN and infinity are no JSON: leave such rows out"
        raise Malformed(f"the body is not JSON: {error}. {remedy}") from None
    if not isinstance(body, dict) or not isinstance(body.get("rows"), list):
        _refuse("/rows", "missing", 'give {"rows": [[…], …]}: one list or object for each sample')
    unknown = next((name for name in body if name != "rows"), None)
    if unknown is not None:
        _refuse(f"/{unknown}", "extra_forbidden", "unknown field: a prediction takes rows only")
    rows: list[Any] = body["rows"]
    if len(rows) > maximum_rows:
        _refuse("/rows", "too_many_rows", f"{len(rows)} rows, and one request may have {maximum_rows}: send several")
    return rows


def array_of(rows: list[Any], shape: tuple[int, ...], columns: tuple[str, ...]) -> Array:
    """float32 (len(rows), *shape). A row is flat, nested to `shape`, or an object by column name.

    Raises InputInvalid with the place of the first value that is missing, no number, or not finite as float32.
    """
    if not rows:
        return np.empty((0, *shape), np.float32)
    named = isinstance(rows[0], dict)
    levels = (prod(shape),) if named else _levels(rows[0], shape)
    values = _from_objects(rows, columns) if named else _from_lists(rows, levels, columns)
    names = columns if named else ()
    if not set(map(type, values)) <= NUMBERS:
        number = next(index for index, value in enumerate(values) if type(value) not in NUMBERS)
        _refuse_value(_pointer(number, levels, names), values[number])
    with np.errstate(over="ignore"):
        array = np.array(values, dtype=np.float64).astype(np.float32)
    finite = np.isfinite(array)
    if not finite.all():
        number = int(finite.argmin())
        _refuse_value(_pointer(number, levels, names), values[number])
    return array.reshape(len(rows), *shape)


def _levels(first: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of the lists in a row: the input's shape when the first row is nested, else one flat list."""
    depth = 0
    while isinstance(first, list) and first and depth < len(shape):
        first, depth = first[0], depth + 1
    if depth < 2:
        return (prod(shape),)
    # One channel may go without its own list: a grey image is rows of pixels.
    return shape[1:] if depth == len(shape) - 1 and shape[0] == 1 else shape


def _from_lists(rows: list[Any], levels: tuple[int, ...], columns: tuple[str, ...]) -> list[Any]:
    """All values in one flat list; each level of nesting is checked to be whole."""
    values = rows
    for depth, size in enumerate(levels):
        if set(map(type, values)) != {list} or set(map(len, values)) != {size}:
            number = next(i for i, value in enumerate(values) if type(value) is not list or len(value) != size)
            _refuse_list(_pointer(number, levels[:depth], ()), values[number], size, columns)
        values = list(chain.from_iterable(values))
    return values


def _from_objects(rows: list[Any], columns: tuple[str, ...]) -> list[Any]:
    if not columns:
        _refuse("/rows/0", "no_columns", "this model's input has no column names: give a list of numbers")
    names = set(columns)
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            _refuse(f"/rows/{index}", "mixed_rows", "row 0 is an object and this one is not: give all rows alike")
        if row.keys() != names:
            _refuse_columns(row, index, columns)
    picked = map(itemgetter(*columns), rows)
    return list(chain.from_iterable(picked)) if len(columns) > 1 else list(picked)


def _refuse_columns(row: dict[str, Any], index: int, columns: tuple[str, ...]) -> NoReturn:
    missing = next((name for name in columns if name not in row), None)
    if missing is not None:
        _refuse(f"/rows/{index}/{_escaped(missing)}", "missing", f"column {missing!r} is missing: give a number")
    unknown = next(name for name in row if name not in columns)
    known = ", ".join(columns)
    _refuse(f"/rows/{index}/{_escaped(unknown)}", "unknown_column", f"unknown column: this model takes {known}")


def _refuse_list(pointer: str, value: Any, size: int, columns: tuple[str, ...]) -> NoReturn:
    if isinstance(value, dict):
        _refuse(pointer, "mixed_rows", "row 0 is a list and this one is an object: give all rows alike")
    if not isinstance(value, list):
        _refuse(pointer, "not_a_list", f"this is not a list: give {size} numbers")
    what = f" ({', '.join(columns)})" if columns else ""
    _refuse(pointer, "wrong_width", f"{len(value)} values: give the {size} that this model takes{what}")


def _refuse_value(pointer: str, value: Any) -> NoReturn:
    if value is None:
        _refuse(pointer, "missing", "the value is missing (null): give a number, or leave the row out")
    if type(value) not in NUMBERS:
        _refuse(pointer, "not_a_number", f"{str(value)[:SHOWN_CHARACTERS]!r} is not a number: give one")
    _refuse(pointer, "not_finite", "the value is not finite as a 32-bit float: correct it, or leave the row out")


def _pointer(number: int, levels: tuple[int, ...], columns: tuple[str, ...]) -> str:
    """Where the `number`-th value of a flat list was, in rows of lists of these sizes."""
    steps: list[str] = []
    for size in reversed(levels):
        number, step = divmod(number, size)
        steps.append(_escaped(columns[step]) if columns else str(step))
    return "/".join(("/rows", str(number), *reversed(steps)))


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _refuse(pointer: str, code: str, message: str) -> NoReturn:
    raise InputInvalid(f"{pointer}: {message}", (FieldProblem(pointer, code, message),))
