"""Checkpoints: one safetensors file with all that a bit-identical resume needs.

Weights and buffers, optimizer state, and as JSON in `__metadata__` the step and the state of early
stopping. Randomness is stateless (see `loop`), so there is none of it to keep.
"""

import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from bn_models.networks import Network
from bn_models.normalization import normalizations
from core.artifacts import Artifact, ArtifactStore
from core.errors import JobFailed, StorageAway, StorageFailed
from core.spec import JobSpec
from core.spec.base import canonical_json
from worker.messages import CheckpointReference
from worker.trainer.monitor import Monitor

FORMAT = 2
"""Another one where what a checkpoint holds can not be read as before."""
MAXIMUM_HEADER_BYTES = 4 * 1024**2
_NETWORK, _OPTIMIZER, _BEST, _OBSERVED = "network/", "optimizer/", "best/", "observed/"


@dataclass
class Progress:
    """What training changes: everything that a checkpoint holds."""

    network: Network
    optimizer: torch.optim.Optimizer
    monitor: Monitor
    step: int = 0
    complete: bool = False
    best: dict[str, Tensor] | None = None
    """The weights of the best evaluation; kept only where early stopping will restore them."""
    observed: dict[str, Tensor] = field(default_factory=dict)
    """Moments of the last observation, which the next one is compared with; float64, and not always finite."""


@dataclass(frozen=True)
class Snapshot:
    """The content of a checkpoint file."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])


def capture(progress: Progress, spec: JobSpec, fingerprint: str, epoch: int, rate: float) -> Snapshot:
    """A snapshot at a step boundary. Raises JobFailed("non_finite_loss") when a tensor is not finite."""
    tensors = {_NETWORK + name: value for name, value in progress.network.state_dict().items()}
    for name, parameter in progress.network.named_parameters():
        for key, value in progress.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{key}/{name}"] = value
    if progress.best is not None:
        tensors |= {_BEST + name: value for name, value in progress.best.items()}
    _require_finite(tensors, progress.step)
    tensors |= {_OBSERVED + name: value for name, value in progress.observed.items()}
    state = {
        "format": FORMAT,
        "spec": spec.model_dump(mode="json"),
        "fingerprint": fingerprint,
        "step": progress.step,
        "epoch": epoch,
        "learning_rate": rate,
        "complete": progress.complete,
        "monitor": progress.monitor.as_json(),
        "updates": {name: layer.updates for name, layer in normalizations(progress.network).items()},
    }
    return Snapshot(tensors, state)


def restore(progress: Progress, snapshot: Snapshot, forked: bool = False) -> None:
    """Puts a snapshot of the same spec into `progress`, on the device of its network.

    `forked`: of the spec that this one came from, whose weights and optimizer state it goes on with; what was the
    best so far, and that training was complete, is not for the fork to know.
    """
    tensors = snapshot.tensors
    progress.network.load_state_dict(_part(tensors, _NETWORK))
    parameters = dict(progress.network.named_parameters())
    for name, value in _part(tensors, _OPTIMIZER).items():
        key, _, parameter_name = name.partition("/")
        parameter = parameters[parameter_name]
        # In the memory format of its parameter, as it was: an update walks over both together.
        as_before = value if value.shape != parameter.shape else torch.empty_like(parameter).copy_(value)
        progress.optimizer.state[parameter][key] = as_before.to(parameter.device)
    progress.step = snapshot.step
    if forked:
        return
    progress.monitor.restore(snapshot.state["monitor"])
    progress.best = _part(tensors, _BEST) or None
    progress.complete = bool(snapshot.state["complete"])
    progress.observed = _part(tensors, _OBSERVED)


def write(store: ArtifactStore, job_id: str, fence: int, snapshot: Snapshot) -> CheckpointReference:
    """Durable when it returns. The fence in the name keeps a zombie from overwriting its successor's file."""
    artifact: Artifact = store.put(f"checkpoints/{job_id}/{snapshot.step:012d}-{fence}.safetensors", pack(snapshot))
    return CheckpointReference(artifact.name, artifact.sha256, artifact.bytes, snapshot.step)


def newest(
    store: ArtifactStore, candidates: tuple[CheckpointReference, ...], spec: JobSpec
) -> tuple[Snapshot | None, list[str]]:
    """The first candidate that can be used, with a warning for each that can not. Raises StorageAway when it is
    not to be known now."""
    warnings: list[str] = []
    for candidate in candidates:
        try:
            return _checked(unpack(store.get(candidate.name, candidate.sha256)), candidate, spec), warnings
        except StorageAway:
            raise
        except (StorageFailed, ValueError) as error:
            warnings.append(f"checkpoint {candidate.name} of step {candidate.step} can not be used: {error}")
    return None, warnings


def pack(snapshot: Snapshot) -> bytes:
    tensors = {name: value.detach().cpu().contiguous() for name, value in snapshot.tensors.items()}
    return save(tensors, {"evenkeel": canonical_json(snapshot.state).decode()})


def unpack(content: bytes) -> Snapshot:
    """The inverse of `pack`. Raises ValueError for anything else, before it believes a size in it."""
    if len(content) < 8:
        raise ValueError("it is no safetensors file")
    (header_bytes,) = struct.unpack_from("<Q", content)
    if header_bytes > min(MAXIMUM_HEADER_BYTES, len(content) - 8):
        raise ValueError(f"its header of {header_bytes} bytes is too large")
    try:
        header = json.loads(content[8 : 8 + header_bytes])
        return Snapshot(load(content), json.loads(header["__metadata__"]["evenkeel"]))
    except (KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"it is no checkpoint ({error!r})") from error


def training_digest(spec: JobSpec) -> str:
    """SHA-256 of the parts of a spec that a trajectory depends on."""
    parts = spec.model_dump(mode="json")
    for name in ("name", "metadata", "priority", "population", "evaluation", "resources", "publish"):
        del parts[name]
    del parts["training"]["time_limit_seconds"]
    parts.pop("observe", None)  # it looks on
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def begins_a_fork(snapshot: Snapshot, spec: JobSpec) -> bool:
    """Is it of the job that this one came from?"""
    return spec.fork is not None and snapshot.step == spec.fork.step


def _checked(snapshot: Snapshot, candidate: CheckpointReference, spec: JobSpec) -> Snapshot:
    if snapshot.state.get("format") != FORMAT:
        raise ValueError(f"its format is {snapshot.state.get('format')!r}, and this version reads {FORMAT}")
    if spec.fork is not None and candidate.sha256 == spec.fork.checkpoint_sha256:
        return snapshot
    try:
        written_for = JobSpec.model_validate(snapshot.state.get("spec"))
    except ValueError as error:
        raise ValueError("this version can not run the spec that it belongs to") from error
    # As both read today: a field that is newer than the checkpoint has its default in both.
    if training_digest(written_for) != training_digest(spec):
        raise ValueError("it belongs to another spec")
    return snapshot


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _require_finite(tensors: dict[str, Tensor], step: int) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise JobFailed(
                "non_finite_loss",
                f"after step {step} {name} is not finite, and is not checkpointed: "
                "lower optimizer.learning_rate, or set optimizer.clip_norm",
            )
