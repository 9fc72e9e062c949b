"""What an upload holds, once it is known to be usable: arrays, their meaning, and where a problem stands."""

from dataclasses import dataclass, field
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from core.errors import FieldProblem, InputInvalid
from core.spec.data import Kind, SourceFacts, Task

Array = NDArray[Any]
CHUNK_BYTES = 4 * 1024**2
MAXIMUM_CLASSES = 1000
MAXIMUM_WIDTH = 10_000
"""Columns of a table, those of categories included: each has a name in the card."""
MAXIMUM_TEXT = 200
"""Characters of a column's name, a category or a label."""


@dataclass(frozen=True)
class Reading:
    """How the uploader wants it read; None: as it looks."""

    task: Task | None = None
    kind: Kind | None = None
    target: str | None = None
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contents:
    """Inputs (N, *input_shape) in the data's own units; targets (N,), class numbers or regression values."""

    task: Task
    kind: Kind
    inputs: Array
    targets: Array
    test_inputs: Array | None = None
    test_targets: Array | None = None
    labels: tuple[str, ...] = ()  # by class number; none of a regression
    columns: tuple[str, ...] = ()  # of the inputs; a column of categories has become one for each
    fields: list[dict[str, Any]] = field(default_factory=list)
    """Columns as they were uploaded, without the target: name, and the categories of one that has text."""
    pixel_maximum: float | None = None

    @property
    def facts(self) -> SourceFacts:
        tested = None if self.test_inputs is None else len(self.test_inputs)
        return SourceFacts(
            self.task,
            self.kind,
            self.inputs.shape[1:],
            len(self.labels) or 1,
            len(self.inputs) + (tested or 0),
            tested,
            self.pixel_maximum,
        )


def chunks(array: Array) -> list[slice]:
    """Rows of an array in parts of about CHUNK_BYTES."""
    step = max(1, CHUNK_BYTES // max(1, prod(array.shape[1:]) * 8))
    return [slice(start, start + step) for start in range(0, len(array), step)]


def refuse_nonfinite(array: Array, where: str) -> None:
    """Raises InputInvalid with the place of the first value that is no number of float32."""
    if array.dtype.kind in "bui":
        return
    for part in chunks(array):
        with np.errstate(over="ignore"):
            finite = np.isfinite(array[part].astype(np.float32))
        if not finite.all():
            row, *place = (int(index) for index in np.argwhere(~finite)[0])
            index = "/".join(str(step) for step in (part.start + row, *place))
            value = array[part][(row, *place)]
            refuse(
                f"{where}/{index}",
                "not_finite",
                f"row {part.start + row + 1} has {value} at {list(place)}, which is no finite number of float32: "
                "correct it, or leave the row out",
            )


def class_numbers(values: Array, labels: tuple[str, ...], where: str) -> NDArray[np.int64]:
    """Texts, or whole numbers written as labels, as places in `labels`."""
    names, places = np.unique(values, return_inverse=True)
    known = {label: number for number, label in enumerate(labels)}
    for name in names.tolist():
        if str(name) not in known:
            row = int(np.flatnonzero(places == names.tolist().index(name))[0])
            refuse(f"{where}/{row}", "unknown_class", f"row {row + 1} is of class {name!r}, which has no label")
    numbers = np.array([known[str(name)] for name in names.tolist()], np.int64)
    return numbers[places.reshape(-1)]


def refuse_class_count(count: int, where: str) -> None:
    if count < 2:
        refuse(where, "one_class", "has one class, so there is nothing to tell apart: add rows of other classes")
    if count > MAXIMUM_CLASSES:
        refuse(
            where,
            "too_many_classes",
            f"has {count} different values, and {MAXIMUM_CLASSES} classes are the most here: for values that are "
            "measured send task=regression",
        )


def text_problem(text: str) -> str | None:
    """Why a text can be no name of a column, category or class; None: it can."""
    if not text:
        return "is empty"
    if len(text) > MAXIMUM_TEXT:
        return f"has {len(text)} characters, and {MAXIMUM_TEXT} are the most here"
    if not text.isprintable():
        return "has a character that can not be shown"
    return None


def refuse(pointer: str, code: str, message: str) -> NoReturn:
    raise InputInvalid(f"{pointer}: {message}", (FieldProblem(pointer, code, message),))
