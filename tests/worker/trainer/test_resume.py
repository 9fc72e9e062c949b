"""A run that was stopped and resumed gives the same bits as one that was not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.artifacts import ArtifactStore
from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.messages import CheckpointReference, Stopped
from worker.trainer.checkpoint import unpack
from worker.trainer.session import train

MLP = digits_spec(
    network={"family": "mlp", "hidden": [16, 16], "dropout": 0.3},
    optimizer={"kind": "adam", "learning_rate": 0.01, "weight_decay": 1e-3},
    schedule={"kind": "cosine", "warmup_steps": 5},
    training={"steps": 60, "evaluate_every": 10, "checkpoint_every": 25, "early_stopping": {"patience": 3}},
)
CONVNET = digits_spec(
    network={"family": "convnet", "channels": [4, 8], "hidden": [16], "dropout": 0.2},
    optimizer={"kind": "sgd", "learning_rate": 0.05, "momentum": 0.9, "clip_norm": 1.0},
    schedule={"kind": "step", "every": 20, "factor": 0.5},
    training={"steps": 60, "evaluate_every": 30, "checkpoint_every": 25, "record_gradient_norm": True},
)
WITHOUT_BATCH_NORM = digits_spec(batch_norm=False, optimizer={"kind": "adamw"}, training={"precision": "bf16"})
STOPS_EARLY = digits_spec(
    optimizer={"kind": "sgd", "learning_rate": 2.0, "momentum": 0.9},
    training={"steps": 400, "evaluate_every": 5, "early_stopping": {"metric": "validation/accuracy", "patience": 3}},
)
RESNET = digits_spec(
    network={"family": "resnet", "blocks": [1, 1], "width": 4},
    batch_norm={"learning_rate_multiplier": 0.5, "weight_decay": 0.01, "layers": {"stem*": {"weight_decay": None}}},
    optimizer={"kind": "adamw", "learning_rate": 0.01},
    training={"steps": 60, "evaluate_every": 30, "checkpoint_every": 25},
)
FROZEN_AT_THE_END = digits_spec(
    network={"family": "mlp", "hidden": [16, 16]},
    batch_norm={"freeze_last_steps": 20, "layers": {"hidden2*": {"freeze_last_steps": 43}}},
    training={"steps": 60, "evaluate_every": 30, "checkpoint_every": 25},
)
SPECS = {
    "mlp": MLP,
    "convnet": CONVNET,
    "without batch norm": WITHOUT_BATCH_NORM,
    "resnet": RESNET,
    "frozen at the end": FROZEN_AT_THE_END,
}


def run(folder: Path, spec: dict[str, Any], checkpoints: tuple[CheckpointReference, ...] = (), **stop: Any) -> ListSink:
    sink = ListSink(**stop)
    train(order_for(folder, spec, checkpoints, fence=len(checkpoints) + 1), sink)
    return sink


def tensors_of_last(folder: Path, sink: ListSink) -> dict[str, Tensor]:
    reference = sink.checkpoints[-1]
    return unpack(ArtifactStore(str(folder / "artifacts")).get(reference.name, reference.sha256)).tensors


def assert_equal_ends(folder: Path, whole: ListSink, resumed: ListSink) -> None:
    ends = [sink.finished.result for sink in (whole, resumed)]
    for key in ("weights_sha256", "statistics_sha256", "accuracy", "loss", "gap", "steps", "best_step"):
        assert ends[0][key] == ends[1][key], key
    expected, found = tensors_of_last(folder / "whole", whole), tensors_of_last(folder, resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("step", [1, 17, 30])
def test_a_paused_and_resumed_run_has_the_bits_of_an_undisturbed_one(tmp_path: Path, name: str, step: int):
    spec = SPECS[name]
    whole = run(tmp_path / "whole", spec)

    paused = run(tmp_path, spec, command="pause", after_steps=step)
    resumed = run(tmp_path, spec, (paused.checkpoints[-1],))

    assert paused.last == Stopped("pause", step)
    assert_equal_ends(tmp_path, whole, resumed)
    recorded = {name: paused.points.get(name, {}) | resumed.points.get(name, {}) for name in whole.points}
    assert recorded == whole.points


def test_a_run_resumed_before_a_last_step_of_rate_zero_takes_it_at_rate_zero(tmp_path: Path):
    spec = digits_spec(schedule={"kind": "cosine", "final_fraction": 0.0}, training={"steps": 12})
    whole = run(tmp_path / "whole", spec)
    assert whole.points["optimizer/learning_rate"][12] == 0.0

    paused = run(tmp_path, spec, command="pause", after_steps=11)
    resumed = run(tmp_path, spec, (paused.checkpoints[-1],))

    assert_equal_ends(tmp_path, whole, resumed)


def test_a_run_stopped_again_before_its_next_step_leaves_no_other_checkpoint_of_the_same_step(tmp_path: Path):
    paused = run(tmp_path, MLP, command="pause", after_steps=7)

    again = run(tmp_path, MLP, (paused.checkpoints[-1],), command="drain", after_steps=0)

    assert again.last == Stopped("drain", 7)
    assert again.checkpoints == []


def test_a_crashed_run_sends_the_recomputed_points_again_and_they_are_equal(tmp_path: Path):
    whole = run(tmp_path, MLP)
    first = whole.checkpoints[0]

    resumed = run(tmp_path, MLP, (first,))

    for series, points in resumed.points.items():
        assert points == {step: value for step, value in whole.points[series].items() if step > first.step}


def test_early_stopping_resumes_with_its_patience_and_its_best_weights(tmp_path: Path):
    whole = run(tmp_path / "whole", STOPS_EARLY)
    stopped_at, best_at = whole.finished.result["steps"], whole.finished.result["best_step"]
    assert best_at < stopped_at < 400

    paused = run(tmp_path, STOPS_EARLY, command="drain", after_steps=best_at + 2)
    resumed = run(tmp_path, STOPS_EARLY, (paused.checkpoints[-1],))

    assert_equal_ends(tmp_path, whole, resumed)


def test_a_complete_checkpoint_goes_straight_to_population_statistics(tmp_path: Path):
    whole = run(tmp_path, MLP)

    again = run(tmp_path, MLP, (whole.checkpoints[-1],))

    assert "train/loss" not in again.points
    assert again.checkpoints == []
    assert again.finished.result["weights_sha256"] == whole.finished.result["weights_sha256"]
    assert again.points["bn/population_loss"] == whole.points["bn/population_loss"]
