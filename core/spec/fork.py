"""Fork: a new job that goes on from a checkpoint of another, with some fields changed."""

from typing import Annotated, Any

from pydantic import Field

from core.spec.base import PositiveInt, Sha256, Spec


class ForkRequest(Spec):
    """What differs from the job that is forked."""

    changes: dict[str, Any] = Field(default_factory=dict)
    """Values by dotted path into its spec, for instance `{"optimizer.learning_rate": 0.01, "training.steps": 2000}`."""
    checkpoint: Annotated[str, Field(max_length=40)] = "newest"
    """`newest`, `best`, or the id of one that `GET /v1/jobs/{id}/checkpoints` lists."""


class ForkSpec(Spec):
    """Where a job goes on from. Written by the service into the spec, so that a job says all of itself."""

    job_id: str
    step: PositiveInt
    """Training goes on with the next one."""
    checkpoint_sha256: Sha256
    request_sha256: Sha256
    """Of what was asked for, so that an idempotency key recognizes it when newer checkpoints have come."""
