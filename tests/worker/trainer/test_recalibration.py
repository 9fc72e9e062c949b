"""What data may be held against a published model, and what it is told when they are others."""

from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import JobFailed
from worker.trainer.published import Version
from worker.trainer.recalibration import _incomparable

CARD = {
    "task": "classification",
    "labels": ["a", "b", "c"],
    "input": {"kind": "table", "shape": [2], "columns": ["length", "width"], "pixel_range": None},
    "scaling": {"kind": "standardize", "offset": [1.0, 2.0], "scale": [0.1, 0.30000000000000004]},
    "output_scaling": None,
}


def base(**changes: Any) -> Version:
    return Version(CARD | changes, {}, {}, None)  # type: ignore[arg-type]


def data(
    labels: tuple[str, ...] = ("a", "b", "c"), columns: tuple[str, ...] = ("length", "width"), task: str = ""
) -> Any:
    return SimpleNamespace(labels=labels, columns=columns, facts=SimpleNamespace(task=task or "classification"))


def test_data_like_the_model_s_own_are_compared():
    assert _incomparable(data(), base()) is None


def test_other_labels_can_be_measured_on_and_not_compared():
    assert "other labels than the model gives" in str(_incomparable(data(labels=("x", "y", "z")), base()))
    assert "other labels" in str(_incomparable(data(labels=("a", "b")), base()))


def test_another_task_can_not_be_compared():
    assert "for regression" in str(_incomparable(data(task="regression"), base()))


def test_other_columns_are_not_what_the_model_takes():
    with pytest.raises(JobFailed, match="the columns are width, length, and the model takes length, width") as caught:
        _incomparable(data(columns=("width", "length")), base())

    assert caught.value.code == "invalid_data"


def test_scaling_shape_and_outputs_are_those_of_the_card_to_the_last_bit():
    found = base()

    assert found.scalings.inputs.offset.tolist() == [1.0, 2.0]
    assert found.scalings.inputs.scale.tolist() == [0.1, 0.30000000000000004]
    assert (found.facts.input_shape, found.facts.outputs, found.facts.pixel_maximum) == ((2,), 3, None)
    regression = base(task="regression", labels=None, output_scaling={"offset": 152.0, "scale": 77.0})
    assert (regression.facts.outputs, regression.scalings.outputs.scale) == (1, 77.0)  # type: ignore[union-attr]
