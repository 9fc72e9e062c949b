"""Observation of a job: the same bits of training as without, and series that numpy finds in the checkpoints too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bn_models.randomness import derive_seed
from core.artifacts import ArtifactStore
from core.spec import JobSpec
from core.spec.observation import ObserveSpec
from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.messages import CheckpointReference, Stopped
from worker.trainer import observing
from worker.trainer.checkpoint import Snapshot, unpack
from worker.trainer.compiling import compiler
from worker.trainer.data import prepare
from worker.trainer.files import DataFolder
from worker.trainer.session import train

CPU = torch.device("cpu")
SHORT = {"steps": 12, "evaluate_every": 6, "checkpoint_every": 5}
SPECS: dict[str, dict[str, Any]] = {
    "mlp by hand": {"network": {"family": "mlp", "hidden": [8, 8], "activation": "sigmoid", "dropout": 0.2}},
    "without batch norm": {"batch_norm": False, "optimizer": {"kind": "adam", "clip_norm": 0.1}},
    "cumulative average, ghost batches": {"batch_norm": {"momentum": None, "virtual_batch_size": 8}},
    "whitening": {"batch_norm": {"kind": "whitening", "group_size": 4}},
    "norms of single samples": {"batch_norm": {"kind": "layer"}},
    "frozen at the end": {"batch_norm": {"freeze_last_steps": 4}},
    "convnet by hand": {"network": {"family": "convnet", "channels": [3, 4], "hidden": [8], "dropout": 0.2}},
    "resnet": {"network": {"family": "resnet", "blocks": [1, 1], "width": 4}},
    "inception": {"network": {"family": "inception", "width": 0.05, "dropout": 0.2}},
    "recurrent": {"network": {"family": "recurrent", "units": [5, 5], "dropout": 0.2}},
    "recurrent without batch norm": {"network": {"family": "recurrent", "units": [5]}, "batch_norm": False},
    "bf16": {"training": SHORT | {"precision": "bf16"}},
}


def spec_of(observe: Any = None, **changes: Any) -> dict[str, Any]:
    training = SHORT | changes.pop("training", {})
    return digits_spec(training=training, **({} if observe is None else {"observe": observe}), **changes)


def run(folder: Path, spec: dict[str, Any], checkpoints: tuple[CheckpointReference, ...] = (), **stop: Any) -> ListSink:
    sink = ListSink(**stop)
    train(order_for(folder, spec, checkpoints, fence=len(checkpoints) + 1), sink)
    return sink


def snapshot(folder: Path, reference: CheckpointReference) -> Snapshot:
    return unpack(ArtifactStore(str(folder / "artifacts")).get(reference.name, reference.sha256))


def weights(folder: Path, sink: ListSink, step: int) -> dict[str, np.ndarray]:
    (reference,) = [one for one in sink.checkpoints if one.step == step]
    tensors = snapshot(folder, reference).tensors
    return {name.removeprefix("network/"): value.double().numpy() for name, value in tensors.items()}


def observed(sink: ListSink) -> dict[str, dict[int, float]]:
    return {name: points for name, points in sink.points.items() if name.startswith("observe/")}


@pytest.mark.parametrize("name", SPECS)
def test_a_training_that_is_observed_at_every_step_has_the_bits_of_one_that_is_not(tmp_path: Path, name: str):
    plain = run(tmp_path / "plain", spec_of(**SPECS[name]))
    watched = run(tmp_path, spec_of({"every": 1, "rows": 50}, **SPECS[name]))

    assert observed(watched) and not observed(plain)
    for key in ("weights_sha256", "statistics_sha256", "accuracy", "loss", "gap"):
        assert plain.finished.result[key] == watched.finished.result[key], key
    for one, other in zip(plain.checkpoints, watched.checkpoints, strict=True):
        before, after = snapshot(tmp_path / "plain", one), snapshot(tmp_path, other)
        kept = {name: value for name, value in after.tensors.items() if not name.startswith("observed/")}
        assert before.tensors.keys() == kept.keys()
        assert all(torch.equal(value, kept[name]) for name, value in before.tensors.items())
        assert before.state["updates"] == after.state["updates"]
    recorded = {name: points for name, points in watched.points.items() if not name.startswith("observe/")}
    assert recorded == plain.points


@pytest.mark.parametrize("name", ["mlp by hand", "resnet", "recurrent", "frozen at the end"])
@pytest.mark.parametrize("step", [4, 7])
def test_a_paused_and_resumed_run_has_the_series_of_an_undisturbed_one(tmp_path: Path, name: str, step: int):
    spec = spec_of({"every": 3}, **SPECS[name])
    whole = run(tmp_path / "whole", spec)

    paused = run(tmp_path, spec, command="pause", after_steps=step)
    resumed = run(tmp_path, spec, (paused.checkpoints[-1],))

    assert paused.last == Stopped("pause", step)
    assert {name: paused.points.get(name, {}) | resumed.points.get(name, {}) for name in whole.points} == whole.points
    assert any("mean_shift" in name for name in observed(resumed))


def test_a_run_that_was_killed_sends_the_same_points_again(tmp_path: Path):
    spec = spec_of({"every": 2}, **SPECS["mlp by hand"])
    whole = run(tmp_path, spec)

    resumed = run(tmp_path, spec, (whole.checkpoints[0],))

    for series, points in observed(resumed).items():
        assert points == {step: value for step, value in whole.points[series].items() if step > 5}


def test_the_first_step_and_every_so_many_are_observed(tmp_path: Path):
    series = observed(run(tmp_path, spec_of({"every": 5})))

    assert list(series["observe/hidden2.activation/p50"]) == [1, 5, 10]
    assert list(series["observe/hidden2.activation/mean_shift"]) == [5, 10]  # there is none before the first
    assert list(series["observe/hidden1.linear/gradient_norm"]) == [1, 5, 10]


def test_only_what_is_asked_for_is_recorded(tmp_path: Path):
    series = observed(run(tmp_path, spec_of({"record": ["gradient_norm", "saturation"]})))

    assert {name.rpartition("/")[2] for name in series} == {"gradient_norm", "dead"}
    assert "observe/hidden1.linear/mean_shift" not in observed(run(tmp_path / "all", spec_of({})))  # the data stay


def probe_of(observe: ObserveSpec, tmp_path: Path) -> np.ndarray:
    spec = JobSpec.model_validate(spec_of({}))
    test = prepare(spec.dataset, DataFolder(tmp_path, "http://127.0.0.1:9"), CPU).test
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(derive_seed(observe.seed, "probe")))
    return test.between(0, len(test))[0][order[: observe.rows]].flatten(1).double().numpy()


def inputs_of(state: dict[str, np.ndarray], x: np.ndarray, batch_norm: bool) -> dict[str, np.ndarray]:
    """What each layer of a network of two hidden sigmoid layers gets, in float64."""
    found = {}
    for block in ("hidden1", "hidden2"):
        found[f"{block}.linear"] = x
        x = x @ state[f"{block}.linear.weight"].T
        if batch_norm:
            deviation = np.sqrt(x.var(0) + 1e-5)
            gamma, beta = state[f"{block}.batch_norm.gamma"], state[f"{block}.batch_norm.beta"]
            x = gamma * (x - x.mean(0)) / deviation + beta
        else:
            x = x + state[f"{block}.linear.bias"]
        found[f"{block}.activation"] = x
        x = 1.0 / (1.0 + np.exp(-x))
    found["output.linear"] = x
    return found


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_series_are_what_numpy_makes_of_the_checkpoints(tmp_path: Path, batch_norm: bool):
    observe = ObserveSpec(every=10, rows=77, seed=4, percentiles=(2.5, 50.0))
    network = {"family": "mlp", "hidden": [16, 12], "activation": "sigmoid"}
    network["initialization"] = {"kind": "normal", "scale": 0.8}
    training = {"steps": 20, "checkpoint_every": 10}
    sink = run(tmp_path, spec_of(observe.model_dump(), network=network, batch_norm=batch_norm, training=training))

    series, x = observed(sink), probe_of(observe, tmp_path)
    before, now = (inputs_of(weights(tmp_path, sink, step), x, batch_norm) for step in (10, 20))
    for name in ("hidden1.activation", "hidden2.linear", "hidden2.activation", "output.linear"):
        scale = np.sqrt(np.mean(before[name].var(0)))
        moved = np.sqrt(np.mean((now[name].mean(0) - before[name].mean(0)) ** 2)) / scale
        widened = np.sqrt(np.mean((now[name].std(0) - before[name].std(0)) ** 2)) / scale
        assert series[f"observe/{name}/mean_shift"][20] == pytest.approx(moved, rel=1e-3)
        assert series[f"observe/{name}/deviation_shift"][20] == pytest.approx(widened, rel=1e-3)
    last = now["hidden2.activation"]
    assert series["observe/hidden2.activation/p2.5"][20] == pytest.approx(np.percentile(last, 2.5), rel=1e-5)
    assert series["observe/hidden2.activation/p50"][20] == pytest.approx(np.percentile(last, 50), rel=1e-4)
    output = 1.0 / (1.0 + np.exp(-now["hidden1.activation"]))
    saturated = np.mean((output < 0.05) | (output > 0.95))
    assert saturated > 0.0 or batch_norm
    assert series["observe/hidden1.activation/saturated"][20] == pytest.approx(saturated, abs=1e-9)


def test_gamma_and_beta_are_those_of_the_checkpoint(tmp_path: Path):
    network = {"family": "recurrent", "units": [5]}
    sink = run(tmp_path, spec_of({"every": 5}, network=network, batch_norm={"affine": True}))

    state, series = weights(tmp_path, sink, 10), observed(sink)
    for place in ("input_norm", "hidden_norm", "cell_norm"):
        gamma = state[f"recurrent1.lstm.{place}.gamma"]
        for figure, value in (("mean", gamma.mean()), ("min", gamma.min()), ("max", gamma.max())):
            found = series[f"observe/recurrent1.lstm.{place}/gamma_{figure}"][10]
            assert found == pytest.approx(value, rel=1e-9)
    assert {name.split("/")[1] for name in series if name.endswith("/beta_mean")} == {"recurrent1.lstm.cell_norm"}


@pytest.mark.parametrize("family", ["mlp", "recurrent"])
def test_the_gradient_of_a_layer_is_the_step_that_its_parameters_took(tmp_path: Path, family: str):
    """Plain SGD: the update of step 6 is the gradient times the rate; of all parameters of the layer together."""
    network = {"family": "mlp", "hidden": [6]} if family == "mlp" else {"family": "recurrent", "units": [5]}
    sink = run(tmp_path, spec_of({"every": 6}, network=network, training={"checkpoint_every": 1}))

    before, after = (weights(tmp_path, sink, step) for step in (5, 6))
    series = observed(sink)
    layers = {"mlp": ["hidden1.linear", "hidden1.batch_norm"], "recurrent": ["recurrent1.lstm"]}[family]
    learned = (".weight", ".bias", ".gamma", ".beta")
    for layer in [*layers, "output.linear"]:
        names = [name for name in before if name.startswith(f"{layer}.") and name.endswith(learned)]
        expected = np.sqrt(sum(np.sum(((before[name] - after[name]) / 0.1) ** 2) for name in names))
        assert series[f"observe/{layer}/gradient_norm"][6] == pytest.approx(expected, rel=1e-3)


def test_the_gradient_is_recorded_before_it_is_clipped(tmp_path: Path):
    free = observed(run(tmp_path / "free", spec_of({})))
    clipped = observed(run(tmp_path, spec_of({}, optimizer={"learning_rate": 0.1, "clip_norm": 1e-4})))

    name = "observe/output.linear/gradient_norm"
    assert clipped[name][1] == free[name][1] > 1e-2


def test_the_probe_is_the_same_whatever_the_seed_of_the_training(tmp_path: Path):
    spec = JobSpec.model_validate(spec_of({"rows": 10}))
    data = prepare(spec.dataset, DataFolder(tmp_path, "http://127.0.0.1:9"), CPU)
    first, again = (observing.probe(data, ObserveSpec(rows=10), 64, 32) for _ in range(2))
    (other,) = observing.probe(data, ObserveSpec(rows=10, seed=1), 64, 32)

    assert len(first) == 1 and first[0].shape == (10, 1, 8, 8)
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other)


def test_rows_may_be_of_the_validation_split_and_no_more_than_it_has(tmp_path: Path):
    dataset = {"source": "iris", "validation_fraction": 0.1}
    spec = JobSpec.model_validate(spec_of({"split": "validation"}, dataset=dataset))
    data = prepare(spec.dataset, DataFolder(tmp_path, "http://127.0.0.1:9"), CPU)

    (rows,) = observing.probe(data, spec.observe or ObserveSpec(), 10, 32)

    assert data.validation is not None and len(rows) == len(data.validation) < 256


def test_a_probe_that_is_too_wide_goes_through_in_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(observing, "LARGEST_MAP", 64 * 40)
    spec = JobSpec.model_validate(spec_of({"rows": 100}))
    data = prepare(spec.dataset, DataFolder(tmp_path, "http://127.0.0.1:9"), CPU)

    assert [len(rows) for rows in observing.probe(data, ObserveSpec(rows=100), 64, 32)] == [40, 40, 20]
    assert [len(rows) for rows in observing.probe(data, ObserveSpec(rows=100), 64, 60)] == [60, 40]


def test_moments_that_are_not_finite_are_recorded_and_fail_no_job(tmp_path: Path):
    """Weights of a million in a row: float32 can still hold the values before the sigmoids, and not their squares."""
    linear = {"layer": "linear", "features": 4}
    layers = [
        {"layer": "flatten"},
        *[linear] * 4,
        {"layer": "activation", "kind": "sigmoid"},
        linear | {"features": 10},
    ]
    network = {"family": "sequential", "layers": layers, "initialization": {"kind": "normal", "scale": 1e6}}
    spec = spec_of({"every": 5}, network=network, batch_norm=False, optimizer={"learning_rate": 1e-9})
    sink = run(tmp_path, spec)

    assert sink.finished.result["steps"] == 12
    assert not np.isfinite(observed(sink)["observe/activation1/deviation_shift"][5])
    again = run(tmp_path, spec, (sink.checkpoints[-2],))
    assert again.finished.result["weights_sha256"] == sink.finished.result["weights_sha256"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
@pytest.mark.skipif(compiler() is None, reason="no C++ compiler is installed here")
def test_a_compiled_training_is_observed_and_has_its_own_bits(tmp_path: Path):
    changes = {"network": {"family": "mlp", "hidden": [8], "dropout": 0.2}, "training": {"compile": True}}

    plain = run(tmp_path / "plain", spec_of(**changes))
    watched = run(tmp_path, spec_of({"every": 2}, **changes))

    assert plain.finished.result["weights_sha256"] == watched.finished.result["weights_sha256"]
    assert observed(watched)
