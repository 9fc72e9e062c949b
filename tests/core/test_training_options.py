"""Data order, augmentation, label noise and input shifts in a spec, and what admission says of them."""

from typing import Any

import pytest

from bn_models.architecture import admit
from core.errors import SpecInvalid
from core.spec import JobSpec


def spec(source: str = "digits", **parts: Any) -> JobSpec:
    return JobSpec.model_validate({"dataset": {"source": source}, "network": {"family": "mlp"}} | parts)


def problems(**parts: Any) -> dict[str, str]:
    with pytest.raises(SpecInvalid) as caught:
        admit(spec(**parts), 10**9, 10**9)
    return {problem.pointer: problem.message for problem in caught.value.problems}


def test_a_kind_of_order_alone_stands_for_the_object_with_its_defaults() -> None:
    assert spec(training={"order": "by_shard"}) == spec(training={"order": {"kind": "by_shard", "shards": 10}})
    assert spec(training={"order": "shuffled"}).digest() == spec().digest()


def test_specs_with_options_are_read_back_as_they_were_written() -> None:
    given = spec(
        training={"order": "class_sorted", "augmentation": {"crop": 1, "affine": {}}, "label_noise": 0.1},
        evaluation={"input_shifts": [{"scale": 0.5, "shift": -0.25}]},
    )

    assert JobSpec.model_validate(given.model_dump(mode="json")) == given
    assert given.evaluation.input_shifts[0].label == "x0.5-0.25"


def test_what_needs_classes_is_refused_of_a_regression() -> None:
    found = problems(source="diabetes", training={"order": "class_sorted", "label_noise": 0.1})

    assert set(found) == {"/training/order/kind", "/training/label_noise"}
    assert "shuffled" in found["/training/order/kind"]


def test_what_needs_images_is_refused_of_a_table() -> None:
    assert set(problems(source="wine", training={"augmentation": {"flip": 0.5}})) == {"/training/augmentation"}


def test_what_is_larger_than_the_data_is_refused_with_the_largest_that_is_not() -> None:
    found = problems(training={"order": {"kind": "by_shard", "shards": 5000}, "augmentation": {"crop": 8, "cutout": 9}})

    assert "set at most 1295" in found["/training/order/shards"]
    assert "set at most 7" in found["/training/augmentation/crop"]
    assert "set at most 7" in found["/training/augmentation/cutout"]


@pytest.mark.parametrize(
    "parts",
    [
        {"training": {"augmentation": {}}},
        {"training": {"augmentation": {"flip": 1.5}}},
        {"training": {"label_noise": 1.0}},
        {"training": {"order": "sorted"}},
        {"evaluation": {"input_shifts": [{"scale": 0.5}, {"scale": 0.5, "shift": 0.0}]}},
    ],
)
def test_what_means_nothing_is_no_spec(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        spec(**parts)


def test_batches_of_one_class_are_a_doubt_with_batch_norm_and_none_without() -> None:
    with_batch_norm = admit(spec(training={"order": "class_per_batch"}), 10**9, 10**9).warnings
    without = admit(spec(training={"order": "class_per_batch"}, batch_norm=False), 10**9, 10**9).warnings

    assert any("batches of one class" in text for text in with_batch_norm)
    assert without == ()
