"""The gap between the ways to normalize: its figures against torch's own modules, and what explains it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from core.spec import JobSpec
from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.messages import LogLine, Thresholds
from worker.trainer import causes
from worker.trainer.session import train


def run(folder: Path, **changes: Any) -> ListSink:
    sink = ListSink()
    train(order_for(folder, digits_spec(**changes)), sink)
    return sink


def gap_of(sink: ListSink) -> dict[str, Any]:
    return sink.finished.result["gap"]


def told(sink: ListSink) -> list[LogLine]:
    return [line for line in sink.of(LogLine) if line.data.get("kind") == "gap"]


def test_too_few_updates_for_the_momentum_are_named_with_what_is_left_of_the_start(tmp_path: Path):
    sink = run(tmp_path, batch_norm={"momentum": 0.01}, training={"steps": 60})

    gap = gap_of(sink)
    assert gap["large"] and "running_average and population" in gap["differing"]
    assert gap["cause"].startswith("too few updates for the momentum: after 60 updates at momentum 0.01")
    assert f"{100 * 0.99**60:.3g} %" in gap["cause"]
    (line,) = told(sink)
    assert line.level == "warning"
    assert line.data["gap"] == gap
    assert "raise batch_norm.momentum" in line.text and f"{gap['population']['accuracy']:.4g}" in line.text


def test_where_only_the_running_average_is_far_nothing_is_said_of_batches_or_of_the_data(tmp_path: Path):
    network = {"family": "mlp", "hidden": [64], "activation": "relu"}

    gap = gap_of(run(tmp_path, network=network, training={"steps": 4, "batch_size": 512}))

    assert "running_average and population" in gap["differing"] and "batch and population" not in gap["differing"]
    assert [cause.partition(":")[0] for cause in gap["causes"]] == ["too few updates for the momentum"]


@pytest.mark.parametrize(("batch", "running", "blamed"), [(0.890, 0.915, "small batch"), (0.899, 0.924, "too few upd")])
def test_where_the_population_is_between_both_the_farther_one_is_explained(
    monkeypatch: pytest.MonkeyPatch, batch: float, running: float, blamed: str
):
    scores = {"batch": batch, "running_average": running, "population": 0.905}
    gap = {name: {"loss": 0.3, "accuracy": accuracy} for name, accuracy in scores.items()}
    monkeypatch.setattr(causes, "_of_the_running_average", lambda *_: [("too few updates", "")])
    monkeypatch.setattr(causes, "_of_the_batch", lambda *_: [("small batch", "")])
    run_of, measured = (
        SimpleNamespace(order=SimpleNamespace(thresholds=Thresholds()), spec=JobSpec.model_validate(digits_spec())),
        SimpleNamespace(estimator="pooled"),
    )

    found = causes.explain(run_of, measured, gap, [("batch", "running_average")])  # type: ignore[arg-type]

    assert [cause[:11] for cause, _ in found] == [blamed]


def test_a_cumulative_average_over_moving_weights_is_named(tmp_path: Path):
    cause = gap_of(run(tmp_path, batch_norm={"momentum": None}, optimizer={"kind": "sgd", "learning_rate": 0.5}))[
        "cause"
    ]

    assert cause.startswith("batch_norm.momentum is null: the running average is the mean over all 40 updates")


def test_dropout_before_batch_norm_is_named_where_it_shifts_the_running_average(tmp_path: Path):
    network = {"family": "mlp", "hidden": [32, 32, 32], "activation": "relu", "dropout": 0.8}

    found = gap_of(run(tmp_path, network=network, training={"steps": 300, "batch_size": 128}))

    assert any(cause.startswith("dropout before batch norm") for cause in found["causes"])


def test_weights_that_outrun_the_running_average_are_drift(tmp_path: Path):
    spec = digits_spec(
        batch_norm={"momentum": 0.05},
        optimizer={"kind": "sgd", "learning_rate": 3.0},
        training={"steps": 110, "batch_size": 256},
    )
    sink = ListSink()

    train(replace(order_for(tmp_path, spec), thresholds=Thresholds(gap_loss=0.04)), sink)

    gap = gap_of(sink)
    assert gap["cause"].startswith("drift: the weights moved faster than the running average follows at momentum 0.05")
    assert "schedule" in gap["remedy"]


def test_a_small_batch_is_proved_by_wider_ones_and_harms_nobody_who_is_served_by_the_population(tmp_path: Path):
    sink = run(tmp_path, training={"steps": 400, "batch_size": 8})

    gap = gap_of(sink)
    assert gap["cause"].startswith("small batch: moments of 8 samples are noisy")
    assert gap["batch"]["loss"] > gap["population"]["loss"]
    assert not any("not distributed" in cause for cause in gap["causes"])
    (line,) = told(sink)
    assert line.level == "info" and "nothing is to be done" in line.text


def test_without_a_large_gap_nothing_is_told(tmp_path: Path):
    sink = run(tmp_path, training={"steps": 300, "batch_size": 256})

    gap = gap_of(sink)
    assert (gap["large"], gap["cause"], gap["differing"]) == (False, None, [])
    assert told(sink) == []


def test_the_thresholds_come_with_the_order(tmp_path: Path):
    spec = digits_spec(training={"steps": 300, "batch_size": 256})
    sink = ListSink()

    train(replace(order_for(tmp_path, spec), thresholds=Thresholds(gap_loss=1e-9)), sink)

    assert gap_of(sink)["large"]


def test_the_figures_of_a_regression_are_loss_rmse_and_r2(tmp_path: Path):
    sink = run(tmp_path, dataset={"source": "diabetes"}, network={"family": "mlp", "hidden": [8]})

    gap = gap_of(sink)
    assert set(gap["population"]) == set(gap["batch"]) == {"loss", "rmse", "r2"}
    points = sink.points
    assert points["bn/gap_r2"] == {40: gap["population"]["r2"] - gap["batch"]["r2"]}
    assert points["bn/gap_running_average_loss"] == {40: gap["running_average"]["loss"] - gap["population"]["loss"]}


def test_the_population_phase_says_how_it_measured_in_result_and_card(tmp_path: Path):
    finished = run(
        tmp_path,
        population={"estimator": "pooled", "samples": 500},
        publish={"model": "m"},
        training={"batch_size": 50},
    ).finished

    for told_there in (finished.result["population"], finished.card["population"]):
        seconds = told_there["seconds"]
        assert {name: told_there[name] for name in ("estimator", "samples", "of", "sampled", "batch_size")} == {
            "estimator": "pooled",
            "samples": 500,
            "of": 1295,
            "sampled": True,
            "batch_size": 50,
        }
        assert 0.0 < seconds <= finished.result["phases_seconds"]["population_statistics"]
    assert finished.card["gap"] == finished.result["gap"]


class Rows:
    def __init__(self, targets: torch.Tensor) -> None:
        self.test = self
        self.targets, self.rows = targets, None


@pytest.mark.parametrize("ordered", [True, False])
def test_test_rows_that_are_sorted_by_class_are_recognized(ordered: bool):
    targets = np.random.default_rng(0).integers(0, 10, 500)

    rows = Rows(torch.from_numpy(np.sort(targets) if ordered else targets))

    assert causes._is_ordered(rows) is ordered  # type: ignore[arg-type]
