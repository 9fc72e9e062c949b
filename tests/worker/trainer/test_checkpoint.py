import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bn_models.architecture import layers_of
from bn_models.networks import build
from core.artifacts import ArtifactStore
from core.errors import JobFailed
from core.spec import JobSpec
from tests.worker.trainer.helpers import ListSink, digits_spec, order_for
from worker.messages import CheckpointReference, LogLine, Started
from worker.trainer.checkpoint import MAXIMUM_HEADER_BYTES, Progress, Snapshot, capture, pack, training_digest, unpack
from worker.trainer.monitor import Monitor
from worker.trainer.optimization import build_optimizer
from worker.trainer.session import train


def progress_for(spec: JobSpec) -> Progress:
    facts = spec.dataset.facts
    layers = layers_of(spec.network, spec.batch_norm, facts.input_shape, facts.outputs)
    network = build(layers, facts.input_shape, spec.network.initialization, seed=0)
    return Progress(network, build_optimizer(network, spec.optimizer), Monitor("test/loss"))


def trained(folder: Path) -> ListSink:
    sink = ListSink()
    train(order_for(folder, digits_spec()), sink)
    return sink


def test_a_snapshot_survives_packing():
    tensors = {
        "network/a": torch.randn(3, 2),
        "network/updates": torch.tensor(7),
        "optimizer/step/a": torch.tensor(1.0),
    }
    snapshot = Snapshot(tensors, {"step": 3, "monitor": {"best": None}})

    unpacked = unpack(pack(snapshot))

    assert unpacked.state == snapshot.state
    assert all(torch.equal(unpacked.tensors[name], value) for name, value in tensors.items())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint at all",
        struct.pack("<Q", MAXIMUM_HEADER_BYTES + 1) + bytes(MAXIMUM_HEADER_BYTES + 8),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 4) + b"\xff\xff\xff\xff",
        pack(Snapshot({"a": torch.ones(3)}, {"step": 1}))[:-1],
    ],
)
def test_bytes_that_are_no_checkpoint_are_refused(content: bytes):
    with pytest.raises(ValueError, match=r"no safetensors|too large|no checkpoint|codec"):
        unpack(content)


def test_the_file_is_plain_safetensors_with_its_state_as_json(tmp_path: Path):
    content = ArtifactStore(str(tmp_path / "artifacts"))
    reference = trained(tmp_path).checkpoints[0]

    raw = content.get(reference.name, reference.sha256)

    (size,) = struct.unpack_from("<Q", raw)
    state = json.loads(json.loads(raw[8 : 8 + size])["__metadata__"]["evenkeel"])
    assert (state["step"], state["epoch"], state["complete"]) == (20, 0, False)
    assert state["updates"] == {"hidden1.batch_norm": 20, "hidden2.batch_norm": 20}


def test_the_name_holds_job_step_and_fence(tmp_path: Path):
    assert trained(tmp_path).checkpoints[0].name == "checkpoints/job_test/000000000020-1.safetensors"


def test_weights_that_are_not_finite_are_never_checkpointed():
    spec = JobSpec.model_validate(digits_spec())
    progress = progress_for(spec)
    with torch.no_grad():
        next(progress.network.parameters())[0, 0] = float("nan")

    with pytest.raises(JobFailed, match=r"hidden1.linear.weight is not finite") as caught:
        capture(progress, spec, "here", 0, 0.1)

    assert caught.value.code == "non_finite_loss"


def test_a_corrupt_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path):
    newest, older = reversed(trained(tmp_path).checkpoints[:2])
    (tmp_path / "artifacts" / newest.name).write_bytes(b"rubbish")

    sink = ListSink()
    train(order_for(tmp_path, digits_spec(), (newest, older), fence=2), sink)

    assert sink.messages[0] == Started(sink.messages[0].fingerprint, older.step)
    (warning,) = [line for line in sink.of(LogLine) if not line.data]
    assert warning.level == "warning" and newest.name in warning.text and "corrupt" in warning.text
    assert sink.finished.result["steps"] == 40


def test_without_any_usable_checkpoint_training_begins_again_with_a_warning(tmp_path: Path):
    lost = CheckpointReference("checkpoints/job_test/000000000020-1.safetensors", "0" * 64, 10, 20)

    (tmp_path / "artifacts").mkdir()

    sink = ListSink()
    train(order_for(tmp_path, digits_spec(), (lost,), fence=2), sink)

    assert sink.messages[0].step == 0
    assert [line.level for line in sink.of(LogLine) if not line.data] == ["warning", "warning"]
    assert sink.finished.result["steps"] == 40


def test_a_checkpoint_of_another_spec_is_not_used(tmp_path: Path):
    (other, *_) = trained(tmp_path).checkpoints

    sink = ListSink()
    train(order_for(tmp_path, digits_spec(training={"seed": 1}), (other,), fence=2), sink)

    assert sink.messages[0].step == 0
    assert "another spec" in sink.of(LogLine)[0].text


def rewritten(folder: Path, reference: CheckpointReference, change: Callable[[dict[str, Any]], object]):
    """The checkpoint with its state changed, as another version would have written it."""
    store = ArtifactStore(str(folder / "artifacts"))
    snapshot = unpack(store.get(reference.name, reference.sha256))
    change(snapshot.state)
    artifact = store.put(f"{reference.name}.rewritten", pack(snapshot))
    return CheckpointReference(artifact.name, artifact.sha256, artifact.bytes, reference.step)


def test_a_job_goes_on_from_a_checkpoint_that_knew_fewer_fields_of_the_spec(tmp_path: Path):
    whole = trained(tmp_path)
    older = rewritten(tmp_path, whole.checkpoints[0], lambda state: state["spec"]["training"].pop("compile"))

    sink = ListSink()
    train(order_for(tmp_path, digits_spec(), (older,), fence=2), sink)

    assert sink.messages[0].step == older.step
    assert not [line for line in sink.of(LogLine) if not line.data]
    assert sink.finished.result["weights_sha256"] == whole.finished.result["weights_sha256"]


@pytest.mark.parametrize("change", [{"format": 1}, {"spec": None}, {"spec": {"training": {"steps": "many"}}}])
def test_training_begins_again_where_this_version_can_not_read_what_a_checkpoint_is_of(
    tmp_path: Path, change: dict[str, Any]
):
    foreign = rewritten(tmp_path, trained(tmp_path).checkpoints[0], lambda state: state.update(change))

    sink = ListSink()
    train(order_for(tmp_path, digits_spec(), (foreign,), fence=2), sink)

    told = [line.text for line in sink.of(LogLine) if line.level == "warning"]
    assert sink.messages[0].step == 0
    assert "this version" in told[0] and "training begins again" in told[1]


def test_what_does_not_change_the_trajectory_does_not_change_the_digest():
    spec = digits_spec()
    relabelled = spec | {"name": "other", "priority": 5, "publish": {"model": "m"}, "metadata": {"a": "b"}}
    faster = digits_spec(optimizer={"kind": "sgd", "learning_rate": 0.2})

    digest = training_digest(JobSpec.model_validate(spec))
    assert training_digest(JobSpec.model_validate(relabelled)) == digest
    assert training_digest(JobSpec.model_validate(faster)) != digest
