"""Tables out of CSV: columns of numbers, columns of text as categories, one of them the target."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.uploads.contents import (
    MAXIMUM_WIDTH,
    Contents,
    Reading,
    class_numbers,
    refuse,
    refuse_class_count,
    text_problem,
)

ROWS_A_PART = 4096
MAXIMUM_CATEGORIES = 256
WHOLE = re.compile(r"[+-]?[0-9]+")
SHOWN = 40
CATEGORIES = "or send the column's name in categories, for texts of any kind"


@dataclass
class Column:
    """Cells as they are read, part by part: numbers, or places in `names`."""

    name: str
    declared: bool = False  # as text, whatever stands in it
    goal: bool = False  # the target, whose classes have a bound, and a remedy, of their own
    as_text: bool | None = None  # None: its first cell decides
    whole: bool = True  # every number of the target so far was written as an integer
    parts: list[NDArray[Any]] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)

    def add(self, cells: list[str], place: "Place") -> None:
        if "" in cells:
            place.refuse(cells.index(""), self.name, "missing", "is missing: give a value, or leave the row out")
        if self.as_text is None:
            self.as_text = self.declared or _number(cells[0]) is None
        if self.as_text:
            self._add_texts(cells, place)
            return
        numbers = _numbers(cells)
        if numbers is None:
            index = next(index for index, cell in enumerate(cells) if _number(cell) is None)
            message = f"is {cells[index]!r:.{SHOWN}}, and the rows before it have numbers: correct it, {CATEGORIES}"
            place.refuse(index, self.name, "no_number", message)
        else:
            self._add_numbers(numbers, cells, place)

    def _add_numbers(self, numbers: NDArray[np.float64], cells: list[str], place: "Place") -> None:
        with np.errstate(over="ignore"):
            finite = np.isfinite(numbers.astype(np.float32))
        if not finite.all():
            index = int(finite.argmin())
            message = f"is {cells[index]!r:.{SHOWN}}, no finite number of float32: correct it, or leave the row out"
            place.refuse(index, self.name, "not_finite", message)
        self.whole = self.whole and self.goal and all(map(WHOLE.fullmatch, cells))
        self.parts.append(numbers)

    def _add_texts(self, cells: list[str], place: "Place") -> None:
        for cell in dict.fromkeys(cells):
            if cell in self.names:
                continue
            index = cells.index(cell)
            if not self.declared and _number(cell) is not None:
                message = f"is {cell!r:.{SHOWN}}, a number, and the rows before it have texts: correct it, {CATEGORIES}"
                place.refuse(index, self.name, "no_text", message)
            problem = text_problem(cell)
            if problem:
                place.refuse(index, self.name, "text", f"{problem}: write another text")
            if len(self.names) == MAXIMUM_CATEGORIES and not self.goal:
                message = (
                    f"is one text more than the {MAXIMUM_CATEGORIES} categories that a column may have: leave the "
                    "column out, or write numbers in it"
                )
                place.refuse(index, self.name, "too_many_categories", message)
            self.names[cell] = len(self.names)
        self.parts.append(np.fromiter(map(self.names.__getitem__, cells), np.int32, len(cells)))

    def values(self) -> NDArray[Any]:
        """All numbers, or the places of texts in `categories`."""
        joined = np.concatenate(self.parts)
        if not self.as_text:
            return joined
        places = {name: place for place, name in enumerate(self.categories)}
        ranks: NDArray[Any] = np.array([places[name] for name in self.names], np.int64)
        sorted_places: NDArray[Any] = ranks[joined]
        return sorted_places

    @property
    def categories(self) -> list[str]:
        return sorted(self.names)


@dataclass(frozen=True)
class Place:
    """Of a part of the table: its first row, counted from 0, and the line of the file that each row ends in."""

    first: int
    lines: list[int]

    def refuse(self, index: int, column: str, code: str, message: str) -> None:
        row = self.first + index
        shown = column.replace("~", "~0").replace("/", "~1")
        where = f"row {row + 1} (line {self.lines[index]}), column {column!r}"
        refuse(f"/body/{row}/{shown}", code, f"{where}: {message}")


def contents_of(file: Path, reading: Reading) -> Contents:
    """Raises InputInvalid with row and column of what can not be used."""
    if reading.kind not in (None, "table"):
        refuse("/query/kind", "kind", f"a CSV file is a table, not {reading.kind}: send arrays as .npz")
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            columns, target = _read(text, reading)
    except UnicodeDecodeError as error:
        refuse("/body", "not_utf8", f"the file is not UTF-8 (byte {error.start} of a part): write it as UTF-8")
    return _assembled(columns, target, reading)


def _read(text: Any, reading: Reading) -> tuple[list[Column], Column]:
    reader = csv.reader(text, strict=True, skipinitialspace=True)
    try:
        columns, target = _columns(_header(reader), reading)
        for place, cells in _parts(reader, len(columns)):
            for column, of_column in zip(columns, zip(*cells, strict=True), strict=True):
                column.add(list(of_column), place)
    except csv.Error as error:
        refuse(
            "/body", "not_csv", f"line {reader.line_num} is no CSV ({error}): quote cells that hold commas or quotes"
        )
    if not target.parts:
        refuse("/body", "empty", "the file has a header and no row: add rows")
    return columns, target


def _header(reader: Any) -> list[str]:
    names = next((row for row in reader if row), None)
    if names is None:
        refuse("/body", "empty", "the file is empty: begin it with a line of column names")
    names = [name.strip() for name in names]
    for number, name in enumerate(names):
        problem = "is there twice" if name in names[:number] else text_problem(name)
        if problem:
            refuse(f"/body/header/{number}", "header", f"column {number + 1}, {name!r:.{SHOWN}}, {problem}: rename it")
    if len(names) < 2:
        separated = next((mark for mark in ";\t|" if mark in names[0]), None)
        remedy = f"write commas instead of {separated!r}" if separated else "one at least besides the target"
        refuse("/body/header", "one_column", f"the file has one column: {remedy}")
    if all(_number(name) is not None for name in names):
        refuse("/body/header", "no_header", "the first line has numbers only: begin with a line of column names")
    return names


def _columns(names: list[str], reading: Reading) -> tuple[list[Column], Column]:
    target = names[-1] if reading.target is None else reading.target
    for parameter, wanted in (("target", (target,)), ("categories", reading.categories)):
        for name in wanted:
            if name not in names:
                known = ", ".join(names)[:400]
                refuse(f"/query/{parameter}", "unknown_column", f"there is no column {name!r:.{SHOWN}}: it has {known}")
    columns = [Column(name, name in reading.categories) for name in names]
    goal = columns[names.index(target)]
    goal.goal = True
    return columns, goal


def _parts(reader: Any, width: int) -> Iterator[tuple[Place, list[list[str]]]]:
    """Rows without the empty lines, stripped, in parts of ROWS_A_PART."""
    first = 0
    rows = ((reader.line_num, row) for row in reader if len(row) > 1 or (row and row[0].strip()))
    while part := list(islice(rows, ROWS_A_PART)):
        cells = []
        for index, (line, row) in enumerate(part):
            if len(row) != width:
                number = first + index
                message = f"row {number + 1} (line {line}) has {len(row)} cells, and the header {width}: correct it"
                refuse(f"/body/{number}", "width", message)
            cells.append(list(map(str.strip, row)))
        yield Place(first, [line for line, _ in part]), cells
        first += len(part)


def _assembled(columns: list[Column], target: Column, reading: Reading) -> Contents:
    given = [column for column in columns if column is not target]
    names = [name for column in given for name in _encoded_names(column)]
    if len(names) > MAXIMUM_WIDTH:
        message = f"the columns and their categories are {len(names)} inputs, and {MAXIMUM_WIDTH} are the most here"
        refuse("/body/header", "too_wide", message)
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        refuse("/body/header", "header", f"two inputs would be called {twice!r}: rename a column")
    rows = sum(map(len, target.parts))
    inputs = np.zeros((rows, len(names)))
    place = 0
    for column in given:
        width = len(_encoded_names(column))
        if column.as_text:
            inputs[np.arange(rows), place + column.values()] = 1.0
        else:
            inputs[:, place] = column.values()
        column.parts.clear()
        place += width
    task = reading.task or ("classification" if target.as_text or target.whole else "regression")
    labels = _labels(target) if task == "classification" else ()
    return Contents(
        task,
        "table",
        inputs,
        _class_numbers(target, labels) if labels else _values(target),
        labels=labels,
        columns=tuple(names),
        fields=[{"name": column.name, "categories": column.categories or None} for column in given],
    )


def _encoded_names(column: Column) -> list[str]:
    return [f"{column.name}={name}" for name in column.categories] if column.as_text else [column.name]


def _labels(target: Column) -> tuple[str, ...]:
    pointer = f"/body/header/{target.name}"
    if target.as_text:
        refuse_class_count(len(target.names), pointer)
        return tuple(target.categories)
    values = np.unique(target.values())
    if not (values == np.floor(values)).all():
        value = values[values != np.floor(values)][0]
        refuse(pointer, "no_class", f"{target.name} has values like {value}: classes are whole numbers or texts")
    refuse_class_count(len(values), pointer)
    return tuple(str(int(value)) for value in values)


def _class_numbers(target: Column, labels: tuple[str, ...]) -> NDArray[np.int64]:
    values = target.values()
    return values if target.as_text else class_numbers(values.astype(np.int64), labels, "/body")


def _values(target: Column) -> NDArray[np.float64]:
    if target.as_text:
        message = f"{target.name} has texts, and a regression needs numbers: correct it, or send task=classification"
        refuse(f"/body/header/{target.name}", "no_values", message)
    return target.values()


def _numbers(cells: list[str]) -> NDArray[np.float64] | None:
    """None where a cell is no number. (Python reads 1_000 as one; nobody else does.)"""
    try:
        found = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None
    return None if "_" in "".join(cells) else found


def _number(cell: str) -> float | None:
    numbers = _numbers([cell])
    return None if numbers is None else float(numbers[0])
