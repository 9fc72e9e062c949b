"""What a supervisor and its trainer say to each other over a pipe: JSON and float64 bytes, no pickle."""

import dataclasses
import json
from array import array
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Command = Literal["cancel", "pause", "drain"]


@dataclass(frozen=True)
class CheckpointReference:
    name: str  # in the artifact store
    sha256: str
    bytes: int
    step: int


@dataclass(frozen=True)
class Thresholds:
    """From where on a job warns of its batch norm; each is a setting, and explained there."""

    gap_accuracy: float = 0.02
    gap_loss: float = 0.1
    dead_variance: float = 10.0
    dead_output: float = 0.001
    exploding_gain: float = 100.0
    exploding_mean: float = 100.0


@dataclass(frozen=True)
class Order:
    """All that a trainer needs to know. `checkpoints` are candidates to resume from, newest first."""

    job_id: str
    spec: dict[str, Any]
    attempt: int
    fence: int
    artifact_url: str
    data_dir: str
    data_mirror_url: str | None
    checkpoints: tuple[CheckpointReference, ...] = ()
    gpu: int | None = None  # the slot's own; what `auto` and `cuda` mean
    artifact_cache_dir: str | None = None  # for copies of what lies in an object store
    artifact_cache_bytes: int = 0
    thresholds: Thresholds = Thresholds()
    storage_patience_seconds: float = 600.0


@dataclass(frozen=True)
class Started:
    """First message: where this trainer runs, and the step it resumes after (0: from the start)."""

    fingerprint: str
    step: int


@dataclass(frozen=True)
class PhaseBegan:
    phase: str


@dataclass(frozen=True)
class Points:
    """Columns of metric points: for each series its steps (int64, ascending) and values (float64)."""

    columns: dict[str, tuple["array[int]", "array[float]"]]


@dataclass(frozen=True)
class LogLine:
    level: Literal["info", "warning", "error"]
    text: str
    step: int
    data: dict[str, Any] = field(default_factory=dict)  # figures behind the text, for programs


@dataclass(frozen=True)
class LayersReported:
    """How each normalization layer with statistics stands after `step`, in order of computation. `final`: by
    the statistics that are published, else by the running average."""

    step: int
    final: bool
    layers: list[dict[str, Any]]


@dataclass(frozen=True)
class CheckpointWritten:
    """The file is durable; a transaction may name it. `complete`: no training step is left."""

    checkpoint: CheckpointReference
    complete: bool
    monitor: str | None = None
    score: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Stopped:
    """The trainer obeyed a command; what it had is checkpointed at `step`."""

    command: Command
    step: int


@dataclass(frozen=True)
class GivenBack:
    """This attempt can not begin, through no fault of the job's: another may, later or elsewhere."""

    reason: str


@dataclass(frozen=True)
class Finished:
    """`result` stands on the job's row; `card` is null when nothing is published."""

    result: dict[str, Any]
    card: dict[str, Any] | None
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)  # onnx|safetensors|card → Artifact fields


@dataclass(frozen=True)
class Failed:
    code: str
    message: str
    step: int
    detail: str = ""  # a traceback, for the log only


Message = (
    Started
    | PhaseBegan
    | Points
    | LogLine
    | LayersReported
    | CheckpointWritten
    | Stopped
    | GivenBack
    | Finished
    | Failed
)
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """A JSON line, for Points followed by all steps and values as little-endian 8-byte items."""
    if isinstance(message, Points):
        counts = {name: len(steps) for name, (steps, _) in message.columns.items()}
        body = b"".join(steps.tobytes() + values.tobytes() for steps, values in message.columns.values())
        return json.dumps({"kind": "Points", "counts": counts}).encode() + b"\n" + body
    return json.dumps({"kind": type(message).__name__} | dataclasses.asdict(message)).encode() + b"\n"


def decode(data: bytes) -> Message:
    """The inverse of `encode`. Raises ValueError on bytes that it did not write."""
    header, _, body = data.partition(b"\n")
    fields = json.loads(header)
    kind = _KINDS[fields.pop("kind")]
    if kind is Points:
        return Points(_decode_columns(fields["counts"], body))
    if kind is CheckpointWritten:
        fields["checkpoint"] = CheckpointReference(**fields["checkpoint"])
    return kind(**fields)


def _decode_columns(counts: dict[str, int], body: bytes) -> dict[str, tuple["array[int]", "array[float]"]]:
    columns = {}
    offset = 0
    for name, count in counts.items():
        middle, end = offset + 8 * count, offset + 16 * count
        columns[name] = (array("q", body[offset:middle]), array("d", body[middle:end]))
        offset = end
    return columns
