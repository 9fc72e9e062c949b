"""What uploaded arrays mean: table, sequences or images by their axes, classes or values by their targets."""

from typing import Any

import numpy as np

from api.uploads.contents import (
    MAXIMUM_WIDTH,
    Array,
    Contents,
    Reading,
    chunks,
    class_numbers,
    refuse,
    refuse_class_count,
    refuse_nonfinite,
    text_problem,
)
from core.spec.data import Kind

KINDS: dict[int, tuple[Kind, ...]] = {2: ("table",), 3: ("sequence", "image"), 4: ("image",)}
"""By the axes of x; the first is meant when nothing is said."""


def contents_of(arrays: dict[str, Array], reading: Reading) -> Contents:
    """Raises InputInvalid that names the array, and the row where there is one."""
    if reading.target is not None or reading.categories:
        refuse("/query/target", "no_columns", "target and categories are columns of a CSV file: leave them out")
    kind = _kind(arrays["x"], reading)
    inputs = _inputs(arrays, "x", kind)
    test = _inputs(arrays, "x_test", kind) if "x_test" in arrays else None
    if test is not None and test.shape[1:] != inputs.shape[1:]:
        refuse("/body/x_test", "shape", f"x_test has rows of {list(test.shape[1:])}, x of {list(inputs.shape[1:])}")
    targets = _column(arrays, "y", len(inputs))
    test_targets = None if test is None else _column(arrays, "y_test", len(test))
    task = reading.task or ("regression" if targets.dtype.kind == "f" else "classification")
    if task == "classification":
        labels = _labels(arrays, targets)
        targets = _numbered(targets, "y", labels, "labels" in arrays)
        if test_targets is not None:
            test_targets = _numbered(test_targets, "y_test", labels, "labels" in arrays)
    else:
        labels = ()
        targets = _values(targets, "y")
        test_targets = None if test_targets is None else _values(test_targets, "y_test")
        if "labels" in arrays:
            refuse("/body/labels", "no_classes", "labels name classes, and this is a regression: leave them out")
    maximum = _pixel_maximum(inputs, test) if kind == "image" else None
    return Contents(task, kind, inputs, targets, test, test_targets, labels, pixel_maximum=maximum)


def _kind(x: Array, reading: Reading) -> Kind:
    kinds = KINDS.get(x.ndim)
    if kinds is None:
        refuse(
            "/body/x",
            "axes",
            f"x has {x.ndim} axes: give 2 for a table (rows, columns), 3 for sequences (rows, time, features), "
            "4 for images (rows, channels, height, width)",
        )
    if reading.kind is not None and reading.kind not in kinds:
        refuse("/query/kind", "kind", f"x has {x.ndim} axes, which is {' or '.join(kinds)}, not {reading.kind}")
    if x.ndim == 2 and x.shape[1] > MAXIMUM_WIDTH:
        refuse("/body/x", "too_wide", f"x has {x.shape[1]} columns, and {MAXIMUM_WIDTH} are the most here")
    return reading.kind or kinds[0]


def _inputs(arrays: dict[str, Array], name: str, kind: Kind) -> Array:
    x = arrays[name]
    if x.ndim != arrays["x"].ndim:
        refuse(f"/body/{name}", "axes", f"{name} has {x.ndim} axes, and x has {arrays['x'].ndim}")
    refuse_nonfinite(x, f"/body/{name}")
    if kind == "image" and x.ndim == 3:
        x = x[:, np.newaxis]
    return x


def _column(arrays: dict[str, Array], name: str, rows: int) -> Array:
    y = arrays[name]
    if y.shape not in ((rows,), (rows, 1)):
        refuse(f"/body/{name}", "shape", f"{name} has the shape {y.shape}: give ({rows},), one for each row of x")
    return y.reshape(-1)


def _classes(y: Array, name: str) -> Array:
    """Integers, truths or texts; numbers like 2.0 are integers when classes were asked for."""
    if y.dtype.kind != "f":
        return y
    whole = np.isfinite(y) & (y == np.floor(y))
    if not whole.all():
        row = int(whole.argmin())
        refuse(f"/body/{name}/{row}", "no_class", f"row {row + 1} is {y[row]}, and a class is a text or whole number")
    return y.astype(np.int64)


def _numbered(y: Array, name: str, labels: tuple[str, ...], given: bool) -> Array:
    """Class numbers. Of whole numbers with labels given, each is one already."""
    classes = _classes(y, name)
    if not given or classes.dtype.kind == "U":
        return class_numbers(classes, labels, f"/body/{name}")
    wrong = (classes < 0) | (classes >= len(labels))
    if wrong.any():
        row = int(wrong.argmax())
        message = f"row {row + 1} is {classes[row]}, and labels names the classes 0 to {len(labels) - 1}"
        refuse(f"/body/{name}/{row}", "unknown_class", message)
    return classes.astype(np.int64)


def _listed(texts: Array, name: str) -> list[Any]:
    try:
        return list(texts.tolist())
    except (ValueError, SystemError):  # code points that there are none of
        refuse(f"/body/{name}", "no_text", f"{name} holds what is no text: write it again")


def _labels(arrays: dict[str, Array], targets: Array) -> tuple[str, ...]:
    """Names by class number: those that were given, else what stands in y, sorted."""
    classes = _classes(targets, "y")
    if "labels" not in arrays:
        found = _listed(np.unique(classes), "y")
        refuse_class_count(len(found), "/body/y")
        names = tuple(str(name) for name in found)
    else:
        given = arrays["labels"]
        names = tuple(_listed(given.reshape(-1), "labels"))
        if given.ndim != 1 or len(set(names)) < len(names):
            refuse("/body/labels", "labels", "labels must be one list of names, each once")
        refuse_class_count(len(names), "/body/labels")
    for number, name in enumerate(names):
        problem = text_problem(name)
        if problem:
            refuse(f"/body/labels/{number}", "label", f"the label of class {number} {problem}: write another")
    return names


def _values(y: Array, name: str) -> Array:
    if y.dtype.kind not in "buif":
        refuse(f"/body/{name}", "no_values", f"{name} holds texts, and a regression needs numbers")
    refuse_nonfinite(y, f"/body/{name}")
    return y.astype(np.float64)


def _pixel_maximum(*images: Array | None) -> float | None:
    """The largest pixel of all; None where one is below 0, or none above."""
    parts = [array[part] for array in images if array is not None for part in chunks(array)]
    if min(part.min() for part in parts) < 0:
        return None
    largest = max(part.max() for part in parts).item()
    return largest if largest > 0 else None
