"""Jobs as clients see them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from api.schemas.network import LayerInPlace
from core.clock import MICROSECONDS, rfc3339
from core.states import TERMINAL, Status, status_of


class Progress(BaseModel):
    step: int
    steps: int
    fraction: float
    eta_seconds: float | None
    """Null unless the job runs and has made a step. A recalibration and an ensemble have none to make."""


class JobError(BaseModel):
    model_config = ConfigDict(extra="allow")
    code: str
    message: str


class Membership(BaseModel):
    """Which part of which comparison a job is."""

    comparison_id: str
    variant: str
    seed: int


class Origin(BaseModel):
    """The checkpoint of another job that a job goes on from."""

    job_id: str
    step: int


class Job(BaseModel):
    object: Literal["job"] = "job"
    id: str
    kind: Literal["training", "recalibration", "ensemble"]
    name: str
    status: Status
    terminal: bool
    status_reason: str | None
    phase: str | None
    attempt: int
    progress: Progress
    latest_metrics: dict[str, float | None] | None = None
    """Null in a list, unless `include=latest_metrics` asks for them; a value that is no number is null."""
    spec: dict[str, Any]
    metadata: dict[str, str]
    error: JobError | None
    result: dict[str, Any] | None
    retry_of: str | None
    forked_from: Origin | None
    """Null for a job that began at its first step."""
    comparison: Membership | None
    """Null for a job of its own."""
    created_at: str
    started_at: str | None
    finished_at: str | None


class CancelOptions(BaseModel):
    """The optional body of a cancel."""

    model_config = ConfigDict(extra="forbid", strict=True)
    force: bool = False
    """Kill the trainer at once, instead of letting it write a last checkpoint."""


class Estimate(BaseModel):
    seconds: float
    basis: Literal["measured", "calibrated"]
    """`measured`: from the step rates of past jobs; `calibrated`: from a short test of this machine."""


class Validation(BaseModel):
    object: Literal["validation"] = "validation"
    valid: Literal[True] = True
    spec: dict[str, Any]
    spec_sha256: str
    parameters: int
    flops_per_step: int
    steps_per_epoch: int
    batches: str
    layers: list[LayerInPlace]
    """The network as its list of layers, with the shapes of each."""
    estimate: Estimate
    warnings: list[str]


class Checkpoint(BaseModel):
    object: Literal["checkpoint"] = "checkpoint"
    id: str
    job_id: str
    step: int
    attempt: int
    sha256: str
    bytes: int
    complete: bool
    best: bool
    monitor: str | None
    score: float | None
    created_at: str


def job_of(row: Any, latest_metrics: dict[str, float | None] | None = None) -> Job:
    status = status_of(row.state, row.cancel_requested_at is not None, row.pause_requested_at is not None)
    return Job(
        id=row.id,
        kind=_kind(row.spec),
        name=row.name,
        status=status,
        terminal=row.state in TERMINAL,
        status_reason=_reason(row, status),
        phase=row.phase,
        attempt=row.attempt,
        progress=_progress(row),
        latest_metrics=latest_metrics,
        spec=row.spec,
        metadata=row.metadata,
        error=row.error,
        result=row.result,
        retry_of=row.retry_of,
        forked_from=_origin(row),
        comparison=_membership(row),
        created_at=rfc3339(row.created_at) or "",
        started_at=rfc3339(row.started_at),
        finished_at=rfc3339(row.finished_at),
    )


def _kind(spec: dict[str, Any]) -> Literal["training", "recalibration", "ensemble"]:
    if spec.get("ensemble"):
        return "ensemble"
    return "recalibration" if spec.get("recalibration") else "training"


def _origin(row: Any) -> Origin | None:
    fork = row.spec.get("fork")
    return None if fork is None else Origin(job_id=fork["job_id"], step=fork["step"])


def _membership(row: Any) -> Membership | None:
    if row.comparison_id is None:
        return None
    return Membership(comparison_id=row.comparison_id, variant=row.variant, seed=row.seed)


def checkpoint_of(row: Any) -> Checkpoint:
    fields = {name: getattr(row, name) for name in Checkpoint.model_fields if name not in ("object", "created_at")}
    return Checkpoint(created_at=rfc3339(row.created_at) or "", **fields)


def _reason(row: Any, status: Status) -> str | None:
    if status == "queued" and row.needs_cuda:
        return "waiting for a worker with a CUDA device"
    if status == "queued" and row.attempt > 0:
        return f"attempt {row.attempt} was interrupted; waiting for a free slot"
    if status == "cancelling":
        return "the trainer is told to stop"
    if status == "pausing":
        return "the trainer is told to write a checkpoint and to stop"
    return None


def _progress(row: Any) -> Progress:
    done = row.state == "succeeded"
    eta = None
    if row.state == "running" and row.step > 0 and row.running_us > 0:
        eta = round((row.steps - row.step) * row.running_us / row.step / MICROSECONDS, 1)
    fraction = round(row.step / row.steps, 6) if row.steps else 0.0
    return Progress(step=row.step, steps=row.steps, fraction=1.0 if done else fraction, eta_seconds=eta)
