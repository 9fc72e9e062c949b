import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_diabetes

from core.artifacts import ArtifactStore
from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.messages import CheckpointWritten, PhaseBegan, Points, Started, Stopped
from worker.trainer import session
from worker.trainer.session import train


def run(folder: Path, spec: dict[str, Any], **stop: Any) -> ListSink:
    sink = ListSink(**stop)
    train(order_for(folder, spec), sink)
    return sink


def phases(sink: ListSink) -> list[str]:
    return [message.phase for message in sink.of(PhaseBegan)]


def test_an_mlp_with_batch_norm_learns_the_digits(tmp_path: Path):
    sink = run(tmp_path, digits_spec(training={"steps": 200}))

    assert sink.finished.result["accuracy"] > 0.9
    assert isinstance(sink.messages[0], Started) and sink.messages[0].step == 0
    assert phases(sink) == ["loading", "preparing_data", "training", "population_statistics", "evaluating"]


def test_every_step_has_its_loss_accuracy_and_rate(tmp_path: Path):
    points = run(tmp_path, digits_spec()).points

    for series in ("train/loss", "train/accuracy", "optimizer/learning_rate"):
        assert list(points[series]) == list(range(1, 41))
    assert set(points["optimizer/learning_rate"].values()) == {0.1}
    assert "optimizer/gradient_norm" not in points


def test_evaluations_come_when_the_spec_says_and_after_the_last_step(tmp_path: Path):
    points = run(tmp_path, digits_spec(training={"steps": 50, "evaluate_every": 20})).points

    for series in ("test/loss", "test/accuracy", "validation/loss", "validation/accuracy"):
        assert list(points[series]) == [20, 40, 50]


def test_the_first_step_is_reported_at_once(tmp_path: Path):
    first = run(tmp_path, digits_spec()).of(Points)[0]

    assert list(first.columns["train/loss"][0]) == [1]


def test_the_first_loss_is_that_of_an_independent_forward_pass(tmp_path: Path):
    spec = digits_spec(batch_norm=False, network={"family": "mlp", "hidden": [], "initialization": {"scale": 1e-9}})

    points = run(tmp_path, spec).points

    assert points["train/loss"][1] == pytest.approx(math.log(10), abs=1e-5)


def test_label_smoothing_raises_the_training_loss_and_not_the_test_loss(tmp_path: Path):
    smooth = run(tmp_path, digits_spec(training={"label_smoothing": 0.5})).points
    hard = run(tmp_path, digits_spec()).points

    assert smooth["train/loss"][40] > hard["train/loss"][40] + 0.3
    assert smooth["test/loss"][40] < smooth["train/loss"][40]


def test_bf16_learns_and_keeps_float32_weights(tmp_path: Path):
    sink = run(tmp_path, digits_spec(training={"steps": 150, "precision": "bf16"}))

    reference = sink.checkpoints[-1]
    content = ArtifactStore(str(tmp_path / "artifacts")).get(reference.name, reference.sha256)
    assert b'"BF16"' not in content[: struct.unpack_from("<Q", content)[0]]
    assert sink.finished.result["accuracy"] > 0.9


def test_the_gradient_norm_is_recorded_before_clipping(tmp_path: Path):
    clipped = digits_spec(
        optimizer={"kind": "sgd", "learning_rate": 0.1, "clip_norm": 1e-6}, training={"record_gradient_norm": True}
    )

    points = run(tmp_path, clipped).points

    assert min(points["optimizer/gradient_norm"].values()) > 1e-2
    assert points["test/loss"][40] == pytest.approx(points["test/loss"][20], rel=0.2)


def test_checkpoints_come_when_due_at_a_new_best_and_at_the_end(tmp_path: Path):
    sink = run(tmp_path, digits_spec(training={"steps": 40, "evaluate_every": 15, "checkpoint_every": 25}))

    written = {message.checkpoint.step: message for message in sink.of(CheckpointWritten)}
    assert {25, 40} <= set(written)
    assert written[40].complete and not written[25].complete and not written[25].best
    assert written[15].best and written[15].monitor == "validation/loss"
    assert written[15].score == sink.points["validation/loss"][15]


def test_points_come_before_the_checkpoint_that_stands_for_them(tmp_path: Path):
    sink = run(tmp_path, digits_spec())

    seen = 0
    for message in sink.messages:
        if isinstance(message, Points) and "train/loss" in message.columns:
            seen = message.columns["train/loss"][0][-1]
        if isinstance(message, CheckpointWritten):
            assert seen == message.checkpoint.step


@pytest.mark.parametrize("command", ["cancel", "pause", "drain"])
def test_every_command_leaves_a_checkpoint_of_the_step_they_stopped_at(tmp_path: Path, command: str):
    sink = run(tmp_path, digits_spec(), command=command, after_steps=7)

    assert sink.last == Stopped(command, 7)
    assert [reference.step for reference in sink.checkpoints] == [7]
    assert list(sink.points["train/loss"]) == list(range(1, 8))


def test_a_command_right_after_the_best_checkpoint_does_not_replace_it_by_one_that_is_not_the_best(tmp_path: Path):
    sink = run(tmp_path, digits_spec(training={"evaluate_every": 7}), command="pause", after_steps=7)

    assert sink.last == Stopped("pause", 7)
    assert [(message.checkpoint.step, message.best) for message in sink.of(CheckpointWritten)] == [(7, True)]


def test_a_command_before_the_first_step_stops_before_it(tmp_path: Path):
    sink = run(tmp_path, digits_spec(), command="pause", after_steps=0)

    assert sink.last == Stopped("pause", 0)


def test_a_diverging_job_fails_with_the_step_and_keeps_its_last_good_checkpoint(tmp_path: Path):
    spec = digits_spec(
        batch_norm=False,
        dataset={"source": "diabetes"},
        optimizer={"kind": "sgd", "learning_rate": 1e5},
        training={"checkpoint_every": 1, "evaluate_every": 40},
    )

    sink = run(tmp_path, spec)

    failed = sink.failed
    steps = sink.points["train/loss"]
    assert failed.code == "non_finite_loss"
    assert not math.isfinite(steps[max(steps)]) or "is not finite" in failed.message
    assert f"step {max(steps)}" in failed.message
    assert sink.checkpoints[-1].step == failed.step == max(steps) - 1 or "is not checkpointed" in failed.message


def test_early_stopping_freezes_the_best_weights(tmp_path: Path):
    spec = digits_spec(
        optimizer={"kind": "sgd", "learning_rate": 2.0, "momentum": 0.9},
        training={"steps": 400, "evaluate_every": 5, "early_stopping": {"patience": 2}},
    )

    sink = run(tmp_path, spec)

    result, losses = sink.finished.result, sink.points["validation/loss"]
    best = min(losses, key=losses.__getitem__)
    assert result["best_step"] == best == result["steps"] - 10
    assert result["gap"]["running_average"]["loss"] == sink.points["test/loss"][best]


def test_regression_explains_most_of_what_a_linear_fit_explains_and_answers_in_the_target_s_units(tmp_path: Path):
    spec = digits_spec(
        dataset={"source": "diabetes"},
        network={"family": "mlp", "hidden": [16]},
        optimizer={"kind": "sgd", "learning_rate": 0.05},
        training={"steps": 150},
        publish={"model": "sugar"},
    )

    sink = run(tmp_path, spec)

    result = sink.finished.result
    assert 0.3 < result["r2"] < 0.7
    assert 40 < result["rmse"] < 70
    assert "train/accuracy" not in sink.points
    rows = load_diabetes(scaled=False).data.astype(np.float32)
    values = answer(tmp_path, sink, "value", rows)
    assert 100 < values.mean() < 200


def test_without_batch_norm_there_is_no_population_phase_and_no_gap(tmp_path: Path):
    sink = run(tmp_path, digits_spec(batch_norm=False))

    assert "population_statistics" not in phases(sink)
    assert sink.finished.result["gap"] is None
    assert sink.finished.result["statistics_sha256"] is None


def test_the_gap_report_is_recorded_at_the_final_step(tmp_path: Path):
    sink = run(tmp_path, digits_spec())

    gap, points = sink.finished.result["gap"], sink.points
    assert points["bn/population_accuracy"] == {40: gap["population"]["accuracy"]}
    assert points["bn/gap_loss"] == {40: gap["population"]["loss"] - gap["batch"]["loss"]}
    assert gap["running_average"]["loss"] == points["test/loss"][40]


def test_nothing_is_exported_when_nothing_is_published(tmp_path: Path):
    sink = run(tmp_path, digits_spec())

    assert sink.finished.card is None and sink.finished.artifacts == {}
    assert not (tmp_path / "artifacts" / "content").exists()


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_published_graph_answers_as_the_evaluated_network_did(tmp_path: Path, batch_norm: bool):
    spec = digits_spec(batch_norm=batch_norm, publish={"model": "digits"}, training={"steps": 100})

    sink = run(tmp_path, spec)

    finished = sink.finished
    card = finished.card
    assert card["receipt"]["passed"] and card["receipt"]["batch_invariant"]
    assert card["input"]["pixel_range"] == [0, 16] and card["labels"] == list("0123456789")
    assert card["weights_sha256"] == finished.result["weights_sha256"]
    assert card["statistics_sha256"] == finished.result["statistics_sha256"]
    order = order_for(tmp_path, spec)
    data = session.prepare(session.JobSpec.model_validate(order.spec).dataset, None, torch.device("cpu"))
    rows = data.test.inputs[data.test.rows].numpy().astype(np.float32)
    answers = answer(tmp_path, sink, "probabilities", rows).argmax(1)
    accuracy = (answers == data.test.targets[data.test.rows].numpy()).mean()
    assert accuracy == pytest.approx(finished.result["accuracy"])


def test_a_table_s_card_names_its_columns_and_labels(tmp_path: Path):
    spec = digits_spec(dataset={"source": "iris"}, publish={"model": "iris"})

    card = run(tmp_path, spec).finished.card

    assert card["input"]["columns"][0] == "sepal length (cm)"
    assert card["labels"] == ["setosa", "versicolor", "virginica"]
    assert len(card["scaling"]["offset"]) == 4


def exhaust_gpu(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def exhaust_cpu(*_: object) -> None:
    torch.empty(2**60, dtype=torch.uint8)  # torch says so with a RuntimeError


@pytest.mark.parametrize("exhausted", [exhaust_gpu, exhaust_cpu])
def test_memory_that_runs_out_has_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exhausted):
    monkeypatch.setattr(session, "prepare", exhausted)

    assert run(tmp_path, digits_spec()).failed.code == "out_of_memory"


def test_an_error_of_our_own_shows_its_traceback_in_the_log_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("secret details")

    monkeypatch.setattr(session, "prepare", broken)

    failed = run(tmp_path, digits_spec()).failed

    assert failed.code == "internal"
    assert "secret" not in failed.message and "secret details" in failed.detail


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path):
    failed = run(tmp_path, digits_spec(resources={"device": "cuda:99"})).failed

    assert "'cuda:99'" in failed.message


def test_threads_and_random_state_are_given_back(tmp_path: Path):
    threads, state = torch.get_num_threads(), torch.get_rng_state()

    run(tmp_path, digits_spec(resources={"device": "cpu", "threads": 2}, network={"family": "mlp", "dropout": 0.1}))

    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def answer(folder: Path, sink: ListSink, output: str, rows: np.ndarray) -> np.ndarray:
    artifact = sink.finished.artifacts["onnx"]
    content = ArtifactStore(str(folder / "artifacts")).get(artifact["name"], artifact["sha256"])
    graph = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return graph.run([output], {"input": rows})[0]
