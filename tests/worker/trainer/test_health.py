"""Reports on layers against figures computed from the checkpoint's own tensors."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load

from core.artifacts import ArtifactStore
from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.messages import LayersReported, LogLine, Thresholds
from worker.trainer.session import train


def run(folder: Path, thresholds: Thresholds | None = None, **changes: Any) -> ListSink:
    sink = ListSink()
    train(replace(order_for(folder, digits_spec(**changes)), thresholds=thresholds or Thresholds()), sink)
    return sink


def last_tensors(folder: Path, sink: ListSink) -> dict[str, np.ndarray]:
    reference = sink.checkpoints[-1]
    content = ArtifactStore(str(folder / "artifacts")).get(reference.name, reference.sha256)
    return {name: value.double().numpy() for name, value in load(content).items()}


def test_every_evaluation_and_the_end_have_a_report(tmp_path: Path):
    sink = run(tmp_path, training={"steps": 50})

    reports = sink.of(LayersReported)
    assert [(report.step, report.final) for report in reports] == [(20, False), (40, False), (50, False), (50, True)]
    assert [layer["name"] for layer in reports[0].layers] == ["hidden1.batch_norm", "hidden2.batch_norm"]


def test_a_report_at_an_evaluation_is_of_the_running_average(tmp_path: Path):
    sink = run(tmp_path)

    report = sink.of(LayersReported)[-2].layers[0]
    tensors = last_tensors(tmp_path, sink)
    gamma, mean, variance = (
        tensors[f"network/hidden1.batch_norm.{name}"] for name in ("gamma", "running_mean", "running_var")
    )
    assert report["statistics"] == "running_average"
    assert report["mean"]["mean"] == pytest.approx(mean.mean(), rel=1e-12)
    assert report["variance"]["p95"] == pytest.approx(np.quantile(variance, 0.95), rel=1e-12)
    assert report["gamma"]["min"] == pytest.approx(gamma.min(), rel=1e-12)
    assert report["gain"]["max"] == pytest.approx((gamma / np.sqrt(variance + 1e-5)).max(), rel=1e-12)
    assert (report["updates"], report["expected_updates"], report["frozen"]) == (40, 40, False)


def test_a_report_at_the_end_is_of_the_population_and_says_how_far_the_running_average_is(tmp_path: Path):
    sink = run(tmp_path, publish={"model": "m"})

    report = sink.of(LayersReported)[-1].layers[1]
    measured = sink.finished.card["population"]["layers"]["hidden2.batch_norm"]
    assert (report["statistics"], report["n"]) == ("pooled", 1295)
    assert report["mean"] == measured["mean"] and report["variance"] == measured["variance"]
    artifact = sink.finished.artifacts["safetensors"]
    tensors = load(ArtifactStore(str(tmp_path / "artifacts")).get(artifact["name"], artifact["sha256"]))
    names = ("population_mean", "population_variance", "running_mean", "running_var")
    mean, variance, running, moving = (tensors[f"hidden2.batch_norm.{name}"].double().numpy() for name in names)
    distance = report["running_average_distance"]
    assert distance["mean"] == pytest.approx(np.sqrt(np.mean((running - mean) ** 2 / variance)), rel=1e-9)
    assert distance["variance"] == pytest.approx(np.sqrt(np.mean(np.log(moving / variance) ** 2)), rel=1e-9)


def test_a_channel_without_variance_is_dead(tmp_path: Path):
    spec = {"network": {"family": "mlp", "hidden": [16], "initialization": {"kind": "normal", "scale": 1e-6}}}

    sink = run(
        tmp_path, **spec, training={"steps": 1, "evaluate_every": 1}, optimizer={"kind": "sgd", "learning_rate": 1e-9}
    )

    report = sink.of(LayersReported)[-1].layers[0]
    assert report["dead"] == {"count": 16, "channels": list(range(16))}
    assert report["exploding"]["count"] == 0
    (line,) = [line.text for line in sink.of(LogLine) if line.text.startswith("dead channels")]
    assert "16 of 16 of hidden1.batch_norm" in line


def test_a_channel_with_a_large_gain_or_far_from_its_centre_is_exploding(tmp_path: Path):
    by_gain = run(tmp_path / "a", Thresholds(exploding_gain=0.01)).of(LayersReported)[-1].layers[0]
    by_mean = run(tmp_path / "b", Thresholds(exploding_mean=0.001)).of(LayersReported)[-1].layers[0]

    assert by_gain["exploding"]["count"] == 16
    assert by_mean["exploding"]["count"] > 8


def test_ghost_batches_count_as_updates_of_their_own(tmp_path: Path):
    sink = run(tmp_path, batch_norm={"virtual_batch_size": 8}, training={"steps": 50, "batch_size": 30})

    report = sink.of(LayersReported)[-1].layers[0]
    # 1,295 rows are 43 batches of 30, three groups each, and one of 5, which is a group by itself.
    assert report["updates"] == report["expected_updates"] == 43 * 3 + 1 + 6 * 3
    assert not [line for line in sink.of(LogLine) if "number of updates" in line.text]


def test_layers_without_statistics_are_not_reported(tmp_path: Path):
    assert run(tmp_path / "a", batch_norm=False).of(LayersReported) == []
    assert run(tmp_path / "b", batch_norm={"kind": "layer"}).of(LayersReported) == []


def test_whitening_and_the_steps_of_an_lstm_are_layers_with_statistics(tmp_path: Path):
    whitening = run(tmp_path / "a", batch_norm={"kind": "whitening"}).of(LayersReported)[-1].layers
    recurrent = run(tmp_path / "b", network={"family": "recurrent", "units": [8]}).of(LayersReported)[-1].layers

    assert [layer["kind"] for layer in whitening] == ["whitening", "whitening"]
    assert len(recurrent) == 3 * 8
    gains = {layer["name"].rpartition(".")[2]: layer["gamma"] for layer in recurrent if ".cell_norm." in layer["name"]}
    assert len(gains) == 8 and gains["step0"] == gains["step7"] is not None  # shared over time


def test_the_empty_state_that_an_lstm_begins_with_is_neither_dead_nor_exploding(tmp_path: Path):
    layers = run(
        tmp_path,
        network={"family": "recurrent", "units": [8]},
        batch_norm={"initial_gamma": 1.0},  # over √eps that is 316
        training={"steps": 1, "evaluate_every": 1},
    )

    (first,) = [layer for layer in layers.of(LayersReported)[-1].layers if layer["name"].endswith(".hidden_norm.step0")]
    assert first["dead"]["count"] == first["exploding"]["count"] == 0
