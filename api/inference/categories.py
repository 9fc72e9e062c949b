"""Rows as a table was uploaded, texts and all, as the inputs that the network takes: one for each category."""

from typing import Any, NoReturn

from core.errors import FieldProblem, InputInvalid

SHOWN_CHARACTERS = 40
Fields = tuple[dict[str, Any], ...]
"""Of a card: name, and categories or None of each column."""


def by_column(rows: list[Any], fields: Fields, columns: tuple[str, ...]) -> list[Any]:
    """Rows as objects by input column. Those that are inputs already, or no rows at all, stay as they are.

    Raises InputInvalid with the place of a text that is no category, or of a row with other columns.
    """
    if not fields or not rows or _are_inputs(rows[0], columns):
        return rows
    return [_inputs(row, f"/rows/{index}", fields) for index, row in enumerate(rows)]


def _are_inputs(row: Any, columns: tuple[str, ...]) -> bool:
    if isinstance(row, dict):
        return row.keys() == set(columns)
    return not isinstance(row, list) or (len(row) == len(columns) and not any(isinstance(cell, str) for cell in row))


def _inputs(row: Any, pointer: str, fields: Fields) -> dict[str, Any]:
    names = [field["name"] for field in fields]
    if isinstance(row, list):
        if len(row) != len(names):
            _refuse(pointer, "wrong_width", f"{len(row)} values: give the {len(names)} columns {', '.join(names)}")
        row = dict(zip(names, row, strict=True))
    if not isinstance(row, dict):
        _refuse(pointer, "not_a_row", f"this is no row: give a list or an object of {', '.join(names)}")
    odd = next((name for name in [*names, *row] if (name in row) != (name in names)), None)
    if odd is not None:
        what = "is missing: give it" if odd in names else f"is unknown: this model takes {', '.join(names)}"
        _refuse(f"{pointer}/{_escaped(odd)}", "missing" if odd in names else "unknown_column", f"column {odd!r} {what}")
    inputs: dict[str, Any] = {}
    for field in fields:
        name, value, categories = field["name"], row[field["name"]], field["categories"]
        if categories is None:
            inputs[name] = value
        elif value in categories:
            inputs |= {f"{name}={category}": float(category == value) for category in categories}
        else:
            message = f"{str(value)[:SHOWN_CHARACTERS]!r} is none of {', '.join(categories)}: give one of these"
            _refuse(f"{pointer}/{_escaped(name)}", "unknown_category", message)
    return inputs


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _refuse(pointer: str, code: str, message: str) -> NoReturn:
    raise InputInvalid(f"{pointer}: {message}", (FieldProblem(pointer, code, message),))
