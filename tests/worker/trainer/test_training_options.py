"""Order, augmentation, label noise and shifted inputs through a whole job."""

from pathlib import Path
from typing import Any

import pytest

from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.trainer.session import train


def result(folder: Path, **changes: Any) -> tuple[dict[str, Any], ListSink]:
    sink = ListSink()
    train(order_for(folder, digits_spec(**changes)), sink)
    return sink.finished.result, sink


def test_an_input_that_is_not_shifted_has_the_scores_of_the_test_and_a_faint_one_needs_its_own_statistics(
    tmp_path: Path,
):
    shifts = [{}, {"scale": 0.1}, {"scale": -1.0, "shift": 1.0}]
    found, sink = result(tmp_path, training={"steps": 200}, evaluation={"input_shifts": shifts})

    same, faint, negative = found["shifted"]
    assert same["served"] == {name: found[name] for name in ("loss", "accuracy")}
    assert same["batch"] == found["gap"]["batch"]
    assert faint["served"]["accuracy"] < 0.5 < faint["batch"]["accuracy"]
    assert negative["served"]["accuracy"] < 0.5
    assert sink.points["test/accuracy_x0.1+0"] == {200: faint["served"]["accuracy"]}
    assert sink.points["bn/batch_loss_x0.1+0"] == {200: faint["batch"]["loss"]}


def test_without_batch_norm_shifted_inputs_have_one_score(tmp_path: Path):
    found, sink = result(tmp_path, batch_norm=False, evaluation={"input_shifts": [{"scale": 0.5}]})

    assert found["shifted"][0]["batch"] is None
    assert set(found["shifted"][0]["served"]) == {"loss", "accuracy"}
    assert sink.points["test/loss_x0.5+0"] == {40: found["shifted"][0]["served"]["loss"]}


def test_batches_of_one_class_spoil_what_is_learned_and_the_gap_says_why(tmp_path: Path):
    shuffled, _ = result(tmp_path, training={"steps": 200})
    found, _ = result(tmp_path, training={"steps": 200, "order": "class_per_batch"})

    assert found["accuracy"] < shuffled["accuracy"] - 0.2
    assert found["gap"]["large"]
    assert "training.order class_per_batch" in found["gap"]["cause"]


def test_noisy_labels_lower_the_training_score_and_touch_no_test_row(tmp_path: Path):
    clean, _ = result(tmp_path, training={"steps": 200})
    noisy, sink = result(tmp_path, training={"steps": 200, "label_noise": 0.4})

    assert sink.points["train/accuracy"][200] < 0.8
    assert 0.6 < noisy["accuracy"] < clean["accuracy"]


def test_augmentation_changes_what_is_learned_and_not_what_statistics_are_measured_on(tmp_path: Path):
    """With a learning rate of next to nothing the network is the same, and so are its population statistics."""
    changes = {"optimizer": {"kind": "sgd", "learning_rate": 1e-30}}
    plain, _ = result(tmp_path, **changes)
    augmented, _ = result(tmp_path, training={"augmentation": {"cutout": 4}}, **changes)

    assert augmented["statistics_sha256"] == plain["statistics_sha256"]
    assert augmented["accuracy"] == plain["accuracy"]
    assert augmented["gap"]["running_average"] != plain["gap"]["running_average"]
    learned, _ = result(tmp_path, training={"steps": 200, "augmentation": {"crop": 1}})
    assert learned["accuracy"] > 0.5


@pytest.mark.parametrize("order", ["fixed_batches", {"kind": "by_shard", "shards": 4}])
def test_other_orders_learn_too(tmp_path: Path, order: Any):
    found, _ = result(tmp_path, training={"steps": 100, "order": order})

    assert found["accuracy"] > 0.8
