"""What uploaded arrays mean: kinds by axes, classes and values by targets, and problems by row."""

from typing import Any

import numpy as np
import pytest

from api.uploads.arrays import contents_of
from api.uploads.contents import Reading
from core.errors import InputInvalid
from core.spec import SourceFacts

TABLE = np.arange(12.0).reshape(6, 2)
CLASSES = np.array([0, 1, 2, 0, 1, 2])


def refused(arrays: dict[str, Any], reading: Reading | None = None) -> tuple[str, str]:
    with pytest.raises(InputInvalid) as caught:
        contents_of(arrays, reading or Reading())
    (problem,) = caught.value.problems
    return problem.pointer, problem.code


@pytest.mark.parametrize(
    ("shape", "asked", "kind", "input_shape"),
    [
        ((6, 2), None, "table", (2,)),
        ((6, 5, 2), None, "sequence", (5, 2)),
        ((6, 5, 2), "image", "image", (1, 5, 2)),
        ((6, 3, 5, 2), None, "image", (3, 5, 2)),
    ],
)
def test_axes_say_what_it_is(shape: Any, asked: Any, kind: str, input_shape: Any) -> None:
    contents = contents_of({"x": np.ones(shape), "y": CLASSES}, Reading(kind=asked))

    assert (contents.kind, contents.facts.input_shape) == (kind, input_shape)


@pytest.mark.parametrize(
    ("y", "labels"),
    [
        (CLASSES, ("0", "1", "2")),
        (CLASSES * 10 - 5, ("-5", "5", "15")),
        (np.array(["b", "a", "c"] * 2), ("a", "b", "c")),
        (CLASSES > 0, ("False", "True")),
        (CLASSES.reshape(-1, 1).astype(np.uint8), ("0", "1", "2")),
    ],
)
def test_whole_numbers_and_texts_are_classes(y: Any, labels: tuple[str, ...]) -> None:
    contents = contents_of({"x": TABLE, "y": y}, Reading())

    assert contents.labels == labels
    assert [labels[number] for number in contents.targets] == [str(value) for value in y.reshape(-1).tolist()]
    assert contents.facts == SourceFacts("classification", "table", (2,), len(labels), 6, None)


def test_fractions_are_values_unless_classes_are_asked_for() -> None:
    assert contents_of({"x": TABLE, "y": CLASSES / 2}, Reading()).task == "regression"
    asked = contents_of({"x": TABLE, "y": CLASSES.astype(float)}, Reading(task="classification"))
    assert asked.labels == ("0", "1", "2")
    assert contents_of({"x": TABLE, "y": CLASSES}, Reading(task="regression")).targets.dtype == np.float64
    assert refused({"x": TABLE, "y": CLASSES / 2}, Reading(task="classification")) == ("/body/y/1", "no_class")


def test_labels_name_classes_that_no_row_may_have() -> None:
    contents = contents_of({"x": TABLE, "y": CLASSES, "labels": np.array(["no", "yes", "maybe", "never"])}, Reading())

    assert contents.labels == ("no", "yes", "maybe", "never")
    assert contents.targets.tolist() == CLASSES.tolist()


def test_a_test_set_is_counted_and_kept_apart() -> None:
    arrays = {"x": TABLE, "y": CLASSES, "x_test": TABLE[:2], "y_test": CLASSES[:2]}

    contents = contents_of(arrays, Reading())

    assert (contents.facts.rows, contents.facts.test_rows) == (8, 2)


def test_images_of_bytes_stay_bytes_and_know_their_largest_pixel() -> None:
    image = np.full((6, 4, 4), 3, np.uint8)
    image[2, 1, 1] = 17

    contents = contents_of({"x": image, "y": CLASSES}, Reading(kind="image"))

    assert contents.inputs.dtype == np.uint8
    assert contents.pixel_maximum == 17
    negative = contents_of({"x": image - 4.0, "y": CLASSES}, Reading(kind="image"))
    assert negative.pixel_maximum is None


def nan_at(*place: int) -> Any:
    array = np.ones((6, 5, 2), np.float32)
    array[place] = np.nan
    return array


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"x": nan_at(4, 3, 1)}, "/body/x/4/3/1", "not_finite"),
        ({"x": np.where(TABLE == 7, 1e39, TABLE)}, "/body/x/3/1", "not_finite"),
        ({"y": np.array([1.5, np.inf, 0, 0, 0, 0])}, "/body/y/1", "not_finite"),
        ({"x": np.ones(6)}, "/body/x", "axes"),
        ({"x": np.ones((6, 1, 1, 1, 1))}, "/body/x", "axes"),
        ({"x": np.ones((6, 10_001), bool)}, "/body/x", "too_wide"),
        ({"y": CLASSES[:5]}, "/body/y", "shape"),
        ({"y": np.zeros((6, 2))}, "/body/y", "shape"),
        ({"y": np.zeros(6, int)}, "/body/y", "one_class"),
        ({"x": np.ones((1001, 1)), "y": np.arange(1001)}, "/body/y", "too_many_classes"),
        ({"y": np.array(["a", "", "b"] * 2)}, "/body/labels/0", "label"),
        ({"y": np.array(["a", "b\x07", "b"] * 2)}, "/body/labels/2", "label"),
        ({"y": np.full(6, 0x110000, np.uint32).view("U1")}, "/body/y", "no_text"),
        ({"labels": np.array(["a", "b"])}, "/body/y/2", "unknown_class"),
        ({"labels": np.array(["a", "a", "b"])}, "/body/labels", "labels"),
        ({"y": CLASSES / 2, "labels": np.array(["a", "b", "c"])}, "/body/labels", "no_classes"),
        ({"x_test": TABLE[:, :1], "y_test": CLASSES}, "/body/x_test", "shape"),
        ({"x_test": TABLE[0], "y_test": CLASSES[:1]}, "/body/x_test", "axes"),
        ({"x_test": TABLE, "y_test": CLASSES + 1}, "/body/y_test/2", "unknown_class"),
    ],
)
def test_what_can_not_be_learned_from_is_named_by_array_and_row(changes: Any, pointer: str, code: str) -> None:
    assert refused({"x": TABLE, "y": CLASSES} | changes) == (pointer, code)


@pytest.mark.parametrize(
    ("reading", "pointer"),
    [
        (Reading(kind="image"), "/query/kind"),
        (Reading(target="y"), "/query/target"),
        (Reading(categories=("a",)), "/query/target"),
    ],
)
def test_a_reading_that_does_not_fit_is_refused(reading: Reading, pointer: str) -> None:
    assert refused({"x": TABLE, "y": CLASSES}, reading)[0] == pointer


def test_texts_are_no_values() -> None:
    assert refused({"x": TABLE, "y": np.array(list("abcabc"))}, Reading(task="regression")) == ("/body/y", "no_values")
