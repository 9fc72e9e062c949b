"""Checkpoints when the disk is full or the store away, and when there is nothing new to keep."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from core.artifacts import ArtifactStore
from core.errors import StorageAway, StorageFailed
from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.messages import CheckpointWritten, GivenBack, LogLine, Stopped
from worker.trainer import patience
from worker.trainer.session import train


def run(folder: Path, spec: dict[str, Any], **stop: Any) -> ListSink:
    sink = ListSink(**stop)
    train(order_for(folder, spec), sink)
    return sink


def test_a_store_that_never_takes_anything_is_a_storage_error(tmp_path: Path):
    (tmp_path / "artifacts").write_text("a file where a folder should be")

    failed = run(tmp_path, digits_spec(training={"checkpoint_every": 10})).failed

    assert (failed.code, failed.step) == ("storage_error", 30)
    assert "3 checkpoints in a row" in failed.message


def full_from(monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> None:
    """Checkpoints of these steps meet a full disk."""
    put = ArtifactStore.put

    def refusing(store: ArtifactStore, name: str, content: bytes):
        if name.startswith("checkpoints/") and first <= int(Path(name).name.split("-")[0]) <= last:
            raise StorageFailed("No space left on device")
        return put(store, name, content)

    monkeypatch.setattr(ArtifactStore, "put", refusing)


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_not_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    full_from(monkeypatch, 10, 15)

    sink = run(tmp_path, digits_spec(training={"checkpoint_every": 5, "evaluate_every": 40}))

    assert sink.finished
    assert [reference.step for reference in sink.checkpoints] == [5, 20, 25, 30, 35, 40]
    warnings = [line for line in sink.of(LogLine) if "No space left on device" in line.text]
    assert [(line.level, line.step) for line in warnings] == [("warning", 10), ("warning", 15)]


def test_a_disk_that_stays_full_fails_the_job_before_much_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    full_from(monkeypatch, 10, 40)

    sink = run(tmp_path, digits_spec(training={"checkpoint_every": 5, "evaluate_every": 40}))

    assert (sink.failed.code, sink.failed.step) == ("storage_error", 20)


@pytest.mark.parametrize("command", ["cancel", "pause", "drain"])
def test_a_command_is_obeyed_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str):
    full_from(monkeypatch, 7, 7)

    sink = run(tmp_path, digits_spec(), command=command, after_steps=7)

    assert sink.last == Stopped(command, 7)
    assert sink.checkpoints == []


def test_a_command_right_after_the_best_checkpoint_does_not_take_its_mark(tmp_path: Path):
    sink = run(tmp_path, digits_spec(), command="pause", after_steps=20)
    resumed = ListSink(command="drain", after_steps=0)
    train(order_for(tmp_path, digits_spec(), tuple(sink.checkpoints), fence=2), resumed)

    assert (sink.last, resumed.last) == (Stopped("pause", 20), Stopped("drain", 20))
    assert [(written.checkpoint.step, written.best) for written in sink.of(CheckpointWritten)] == [(20, True)]
    assert resumed.checkpoints == []


def away(monkeypatch: pytest.MonkeyPatch, tries: float, prefix: str = "") -> list[str]:
    """The store is away for so many tries to write below `prefix`, which are listed as they come."""
    put, missed = ArtifactStore.put, []
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)

    def unanswered(store: ArtifactStore, name: str, content: bytes):
        if name.startswith(prefix) and len(missed) < tries:
            missed.append(name)
            raise StorageAway("nobody answers")
        return put(store, name, content)

    monkeypatch.setattr(ArtifactStore, "put", unanswered)
    return missed


def test_a_store_that_is_away_for_a_while_costs_neither_the_job_nor_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = digits_spec(training={"steps": 400, "checkpoint_every": 5, "evaluate_every": 400})
    undisturbed = run(tmp_path / "other", spec)
    missed = away(monkeypatch, tries=3)

    sink = run(tmp_path, spec)

    assert sink.finished.result["weights_sha256"] == undisturbed.finished.result["weights_sha256"]
    assert sink.points == undisturbed.points
    assert len(missed) == 3
    told = [line.text for line in sink.of(LogLine) if "artifact store" in line.text]
    assert ["away" in text for text in told] == [True] * 3 + [False]
    assert "is back" in told[-1]
    assert sink.checkpoints[-1].step == 400


@pytest.mark.parametrize("prefix", ["checkpoints/", "content/"])
def test_the_last_checkpoint_and_the_model_wait_for_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
):
    missed = away(monkeypatch, tries=4, prefix=prefix)

    published = {"publish": {"model": "digits", "alias": None}}
    sink = run(tmp_path, digits_spec(training={"checkpoint_every": 40}) | published)

    assert set(sink.finished.artifacts) == {"onnx", "safetensors", "probe", "watch", "card"}
    assert len(missed) == 4
    assert sink.checkpoints[-1].step == 40


def test_a_store_that_stays_away_fails_the_job_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    away(monkeypatch, tries=float("inf"))
    sink = ListSink()

    train(dataclasses.replace(order_for(tmp_path, digits_spec()), storage_patience_seconds=0.1), sink)

    assert (sink.failed.code, sink.failed.step) == ("storage_error", 40)
    assert "was away" in sink.failed.message


def test_a_command_is_obeyed_while_the_store_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    away(monkeypatch, tries=float("inf"))

    sink = run(tmp_path, digits_spec(training={"checkpoint_every": 40}), command="drain", after_steps=40)

    assert sink.last == Stopped("drain", 40)
    assert sink.checkpoints == []


def test_a_checkpoint_that_can_not_be_asked_for_now_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known = run(tmp_path, digits_spec()).checkpoints

    def unanswered(*_: Any):
        raise StorageAway("nobody answers")

    with monkeypatch.context() as patch:
        patch.setattr(ArtifactStore, "get", unanswered)
        sink = ListSink()
        train(order_for(tmp_path, digits_spec(), tuple(known), fence=2), sink)

    assert [type(message) for message in sink.messages] == [GivenBack]
    assert "nobody answers" in sink.last.reason
