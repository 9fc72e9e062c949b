"""`freeze_last_steps`: measured when the last steps begin, kept to the end, the same bits after an interruption."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from bn_models.architecture import layers_of
from bn_models.networks import build
from bn_models.population import measure
from core.artifacts import ArtifactStore
from core.spec import JobSpec
from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.messages import CheckpointReference, LayersReported, LogLine, Stopped
from worker.trainer.data import prepare
from worker.trainer.session import train

FREEZE = {"freeze_last_steps": 15}


def run(folder: Path, checkpoints: tuple[CheckpointReference, ...] = (), **changes: Any) -> ListSink:
    stop = {name: changes.pop(name) for name in ("command", "after_steps") if name in changes}
    sink = ListSink(**stop)
    spec = digits_spec(**{"batch_norm": FREEZE} | changes)
    train(order_for(folder, spec, checkpoints, fence=2 if checkpoints else 1), sink)
    return sink


def tensors(folder: Path, sink: ListSink, step: int) -> dict[str, torch.Tensor]:
    reference = next(reference for reference in sink.checkpoints if reference.step == step)
    return load(ArtifactStore(str(folder / "artifacts")).get(reference.name, reference.sha256))


def statistics_of(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if ".running_" in name}


def test_the_statistics_are_those_of_the_weights_when_the_last_steps_begin_and_never_move_again(tmp_path: Path):
    sink = run(tmp_path, training={"checkpoint_every": 25, "evaluate_every": 100})

    before, after = tensors(tmp_path, sink, 25), tensors(tmp_path, sink, 40)
    spec = JobSpec.model_validate(digits_spec(batch_norm=FREEZE))
    network = build(layers_of(spec.network, spec.batch_norm, (1, 8, 8), 10), (1, 8, 8), spec.network.initialization, 0)
    state = {name.removeprefix("network/"): value for name, value in before.items() if name.startswith("network/")}
    network.load_state_dict(state)
    data = prepare(spec.dataset, None, torch.device("cpu"))  # type: ignore[arg-type]
    measured = measure(network, data.training.stored(), spec.population, 32, 0, data.training.scaler)
    for name, layer in measured.layers.items():
        kept = after[f"network/{name}.running_mean"].numpy(), after[f"network/{name}.running_var"].numpy()
        assert np.array_equal(kept[0], layer.mean.astype(np.float32))
        assert np.array_equal(kept[1], layer.variance.astype(np.float32))
    assert not np.array_equal(before["network/hidden1.batch_norm.running_mean"].numpy(), kept[0])


def test_an_event_says_when_and_how_and_the_phase_stays(tmp_path: Path):
    sink = run(tmp_path)

    (line,) = [line for line in sink.of(LogLine) if line.data.get("kind") == "freeze"]
    assert line.step == 25 and line.text.startswith("before step 26: hidden1.batch_norm, hidden2.batch_norm frozen")
    assert line.data["layers"] == ["hidden1.batch_norm", "hidden2.batch_norm"]
    assert line.data["samples"] == 1295


def test_frozen_layers_keep_their_statistics_in_what_is_published(tmp_path: Path):
    sink = run(tmp_path, publish={"model": "m"})

    card, result = sink.finished.card, sink.finished.result
    report = sink.of(LayersReported)[-1].layers[0]
    state = tensors(tmp_path, sink, 40)
    assert report["frozen"] and (report["updates"], report["expected_updates"]) == (25, 25)
    assert card["population"]["layers"]["hidden1.batch_norm"]["frozen"]
    assert card["population"]["layers"]["hidden1.batch_norm"]["mean"]["max"] == pytest.approx(
        float(state["network/hidden1.batch_norm.running_mean"].max()), rel=1e-6
    )
    # With one and the same statistics there is nothing left to differ.
    assert result["gap"]["batch"] == pytest.approx(result["gap"]["population"], rel=1e-5)


def test_only_the_layers_that_are_told_to_freeze_do(tmp_path: Path):
    options = {"layers": {"hidden2.*": {"freeze_last_steps": 30}}, "freeze_last_steps": 0}

    sink = run(tmp_path, batch_norm=options)

    frozen = {layer["name"]: layer["frozen"] for layer in sink.of(LayersReported)[-1].layers}
    assert frozen == {"hidden1.batch_norm": False, "hidden2.batch_norm": True}


def test_as_many_last_steps_as_there_are_freeze_before_the_first(tmp_path: Path):
    sink = run(tmp_path, batch_norm={"freeze_last_steps": 40})

    assert sink.finished.result["steps"] == 40
    assert sink.of(LayersReported)[-1].layers[0]["updates"] == 0


@pytest.mark.parametrize("boundary", [24, 25, 26, 39])
@pytest.mark.parametrize("kind", ["batch", "whitening"])
def test_a_run_that_is_paused_around_the_boundary_ends_with_the_same_bits(tmp_path: Path, boundary: int, kind: str):
    options = FREEZE | {"kind": kind}
    whole = run(tmp_path / "whole", batch_norm=options)
    first = run(tmp_path / "cut", batch_norm=options, command="pause", after_steps=boundary)
    assert first.last == Stopped("pause", boundary)

    second = run(tmp_path / "cut", tuple(reversed(first.checkpoints)), batch_norm=options)

    assert second.finished.result["weights_sha256"] == whole.finished.result["weights_sha256"]
    assert second.finished.result["statistics_sha256"] == whole.finished.result["statistics_sha256"]
    end = (tensors(tmp_path / "whole", whole, 40), tensors(tmp_path / "cut", second, 40))
    for name, value in statistics_of(end[0]).items():
        assert torch.equal(value, end[1][name]), name


@pytest.mark.parametrize("every", [25, 26, 1])
def test_a_run_that_was_killed_around_the_boundary_ends_with_the_same_bits(tmp_path: Path, every: int):
    training = {"checkpoint_every": every, "evaluate_every": 100}
    whole = run(tmp_path, training=training)

    for reference in [reference for reference in whole.checkpoints if reference.step in (24, 25, 26)]:
        again = run(tmp_path, (reference,), training=training)

        assert again.finished.result["weights_sha256"] == whole.finished.result["weights_sha256"]
        assert again.finished.result["statistics_sha256"] == whole.finished.result["statistics_sha256"]
        for series, values in again.points.items():
            assert values == {step: whole.points[series][step] for step in values}, series


def test_the_loop_asks_once_right_before_the_first_of_the_last_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("worker.trainer.loop.freeze_due", lambda run, step: asked.append((run.progress.step, step)))

    run(tmp_path)

    assert asked == [(25, 26)]
