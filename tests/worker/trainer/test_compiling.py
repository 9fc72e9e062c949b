"""`training.compile`: with a compiler, and without one."""

import stat
from pathlib import Path
from typing import Any

import pytest

from core.artifacts import ArtifactStore
from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.messages import CheckpointReference, LogLine, PhaseBegan, Started, Stopped
from worker.trainer import compiling
from worker.trainer.checkpoint import unpack
from worker.trainer.compiling import cache_folder, compiler
from worker.trainer.session import train

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # inductor's imports of torch's own
needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler is installed here")


def spec_of(**changes: Any) -> dict[str, Any]:
    training = {"compile": True, "steps": 12, "evaluate_every": 6, "checkpoint_every": 6, "batch_size": 400}
    network = {"family": "mlp", "hidden": [8], "dropout": 0.2}
    return digits_spec(network=network, training=training | changes.pop("training", {}), **changes)


def run(folder: Path, spec: dict[str, Any], checkpoints: tuple[CheckpointReference, ...] = (), **stop: Any) -> ListSink:
    sink = ListSink(**stop)
    train(order_for(folder, spec, checkpoints, fence=len(checkpoints) + 1), sink)
    return sink


def test_without_a_compiler_a_warning_says_so_and_training_has_the_bits_of_an_uncompiled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = run(tmp_path / "plain", spec_of(training={"compile": False}))
    monkeypatch.setattr(compiling, "compiler", lambda: None)

    sink = run(tmp_path, spec_of())

    (warning,) = (line.text for line in sink.of(LogLine) if "compile" in line.text)
    assert "has no C++ compiler" in warning
    assert sink.finished.result["weights_sha256"] == plain.finished.result["weights_sha256"]


def test_a_cumulative_average_is_not_compiled(tmp_path: Path):
    sink = run(tmp_path, spec_of(batch_norm={"momentum": None}))

    assert any("cumulative average" in line.text for line in sink.of(LogLine))


@needs_compiler
@pytest.mark.slow
def test_compilation_is_a_phase_and_stands_in_the_fingerprint(tmp_path: Path):
    sink = run(tmp_path, spec_of(training={"steps": 2}))

    assert sink.finished.result["steps"] == 2
    assert [message.phase for message in sink.of(PhaseBegan)][2:4] == ["compiling", "training"]
    assert f"compiler={compiler()}" in sink.of(Started)[0].fingerprint


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("family", ["mlp", "convnet"])
def test_a_compiled_run_that_was_paused_and_resumed_has_the_bits_of_an_undisturbed_one(tmp_path: Path, family: str):
    networks = {
        "mlp": {"family": "mlp", "hidden": [8], "dropout": 0.2},
        "convnet": {"family": "convnet", "channels": [4], "hidden": [8]},
    }
    spec = spec_of() | {"network": networks[family]}
    whole = run(tmp_path / "whole", spec)

    paused = run(tmp_path, spec, command="pause", after_steps=8)
    resumed = run(tmp_path, spec, (paused.checkpoints[-1],))

    assert isinstance(paused.last, Stopped)
    for key in ("weights_sha256", "statistics_sha256", "accuracy", "loss", "gap"):
        assert whole.finished.result[key] == resumed.finished.result[key], key
    recorded = {name: paused.points.get(name, {}) | resumed.points.get(name, {}) for name in whole.points}
    assert recorded == whole.points


@needs_compiler
@pytest.mark.slow
def test_a_compiled_run_counts_the_updates_of_its_running_averages(tmp_path: Path):
    sink = run(tmp_path, spec_of())

    last = sink.checkpoints[-1]
    snapshot = unpack(ArtifactStore(str(tmp_path / "artifacts")).get(last.name, last.sha256))
    assert snapshot.state["updates"] == {"hidden1.batch_norm": 12}
    assert sink.points["test/loss"][12] < sink.points["test/loss"][6]


def test_what_was_compiled_is_kept_where_nobody_else_can_write(tmp_path: Path):
    folder = cache_folder(tmp_path)

    assert cache_folder(tmp_path) == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_others_can_enter_is_left_alone(tmp_path: Path):
    cache_folder(tmp_path).chmod(0o777)

    folder = cache_folder(tmp_path)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
