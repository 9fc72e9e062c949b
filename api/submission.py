"""From a body to a queued job: one spec, one plan, one transaction."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from api.bodies import validated
from bn_models.architecture import Plan, admit
from core.db import Database
from core.errors import Conflict, FieldProblem, IdempotencyMismatch, SpecInvalid
from core.identifiers import new_id
from core.queries import checkpoints, datasets, events, jobs, leases
from core.queries.events import EventDraft
from core.settings import Settings
from core.spec import DatasetSpec, JobSpec
from core.spec.fork import ForkSpec


@dataclass(frozen=True)
class Submission:
    """An admitted spec on its way to a row."""

    tenant_id: str
    spec: JobSpec
    flops_per_step: int
    idempotency_key: str | None = None
    retry_of: str | None = None


def admitted(body: Any, settings: Settings) -> tuple[JobSpec, Plan]:
    """The spec with its defaults, and its plan. Raises SpecInvalid with every problem found."""
    if isinstance(body, dict) and body.get("recalibration") is not None:
        message = (
            "is written by the service: to measure a model's statistics anew, "
            "post the data set to /v1/models/{name}/recalibrate"
        )
        raise SpecInvalid((FieldProblem("/recalibration", "not_for_users", message),))
    if isinstance(body, dict) and body.get("ensemble") is not None:
        message = "is written by the service: to make versions answer as one model, post them to /v1/models"
        raise SpecInvalid((FieldProblem("/ensemble", "not_for_users", message),))
    if isinstance(body, dict) and body.get("fork") is not None:
        message = "is written by the service: to go on from a job's checkpoint, post to /v1/jobs/{id}/fork"
        raise SpecInvalid((FieldProblem("/fork", "not_for_users", message),))
    spec = validated(JobSpec, body)
    if spec.dataset.source == "uploaded" and spec.dataset.stored is None:
        message = "names an uploaded data set that was not looked up: post the spec to /v1/jobs"
        raise SpecInvalid((FieldProblem("/dataset/source", "not_looked_up", message),))
    return spec, admit(spec, settings.maximum_parameters, settings.maximum_steps)


def submit(database: Database, submission: Submission) -> tuple[Any, bool]:
    """(the job's row, whether an earlier request with this idempotency key had made it). Committed.

    Raises IdempotencyMismatch when the key was used with another body.
    """
    replay = _replay(database, submission)
    if replay is not None:
        return replay, True
    try:
        with database.write() as connection:
            return _insert(connection, submission), False
    except IntegrityError:
        replay = _replay(database, submission)  # lost the race for the key: the winner has committed
        if replay is None:
            raise
        return replay, True


def _replay(database: Database, submission: Submission) -> Any:
    if submission.idempotency_key is None:
        return None
    with database.read() as connection:
        row = connection.execute(
            jobs.by_idempotency_key(submission.tenant_id, submission.idempotency_key)
        ).one_or_none()
    if row is None:
        return None
    if row.retry_of != submission.retry_of or submission.spec.digest() not in (row.spec_sha256, _digest_today(row)):
        raise mismatch(submission.idempotency_key, row)
    return row


def _digest_today(row: Any) -> str:
    """Of a spec that an older version stored: with the defaults of fields that are newer than it."""
    try:
        return JobSpec.model_validate(row.spec).digest()
    except ValidationError:  # what it asked for is refused today, so nobody can ask for the same again
        return str(row.spec_sha256)


def mismatch(key: str, row: Any) -> IdempotencyMismatch:
    return IdempotencyMismatch(f"Idempotency-Key {key!r} made job {row.id} out of another body: use a new key")


def _insert(connection: Connection, submission: Submission) -> Any:
    spec = submission.spec
    use_dataset(connection, submission.tenant_id, spec.dataset)
    trained = _complete_checkpoint(connection, submission.retry_of)
    row = connection.execute(
        jobs.create(
            id=new_id("job"),
            tenant_id=submission.tenant_id,
            idempotency_key=submission.idempotency_key,
            spec=spec.model_dump(mode="json"),
            spec_sha256=spec.digest(),
            name=spec.name,
            family=spec.network.family,
            metadata=spec.metadata,
            priority=spec.priority,
            needs_cuda=spec.resources.device.startswith("cuda"),
            flops_per_step=submission.flops_per_step,
            steps=spec.training.steps if spec.trains else 0,
            step=trained.step if trained else _first_step(spec),
            retry_of=submission.retry_of,
            forked_from=spec.fork.job_id if spec.fork else None,
            **_membership(connection, submission),
        )
    ).one()
    message = _how_it_came(submission)
    connection.execute(events.append(row.id, 1, 0, [EventDraft("status", message, {"status": "queued"})]))
    if trained:
        _carry_over(connection, trained, row.id)
    elif spec.fork is not None:
        go_on_from(connection, submission.retry_of or spec.fork.job_id, row.id, spec.fork)
    return row


def _how_it_came(submission: Submission) -> str:
    fork = submission.spec.fork
    if submission.retry_of is not None:
        return f"queued, as a retry of {submission.retry_of}"
    return "queued" if fork is None else f"queued, to go on from step {fork.step} of {fork.job_id}"


def go_on_from(connection: Connection, source_job_id: str, job_id: str, fork: ForkSpec) -> None:
    """Gives a fork the checkpoint that it begins with, and what was recorded up to it.

    Raises Conflict when the source has dropped that checkpoint meanwhile: its row is held, so that it can not do
    so after this.
    """
    connection.execute(leases.lock(source_job_id)).one()
    found = connection.execute(checkpoints.at_step(source_job_id, fork.step)).one_or_none()
    if found is None or found.sha256 != fork.checkpoint_sha256:
        raise Conflict(f"job {source_job_id} no longer keeps its checkpoint of step {fork.step}: ask again")
    connection.execute(jobs.copy_series(source_job_id, job_id, fork.step))
    connection.execute(jobs.copy_points(source_job_id, job_id, fork.step))
    connection.execute(jobs.latest_of_copies(job_id))
    columns = {"attempt": 0, "complete": False, "best": False, "monitor": None, "score": None}
    columns |= {name: getattr(found, name) for name in ("step", "name", "sha256", "bytes")}
    connection.execute(checkpoints.create(id=new_id("ckpt"), job_id=job_id, **columns))


def _first_step(spec: JobSpec) -> int:
    return 0 if spec.fork is None else spec.fork.step


def _membership(connection: Connection, submission: Submission) -> dict[str, Any]:
    """A member that is run again stands for the one that it repeats."""
    if submission.retry_of is None:
        return {}
    source = connection.execute(jobs.one(submission.tenant_id, submission.retry_of)).one()
    return {"comparison_id": source.comparison_id, "variant": source.variant, "seed": source.seed}


def use_dataset(connection: Connection, tenant_id: str, dataset: DatasetSpec) -> None:
    """From here to the end of the transaction nobody deletes the data set; after it, the job keeps it."""
    if dataset.name is None or dataset.version is None:
        return
    if connection.execute(datasets.used(tenant_id, dataset.name, dataset.version)).one_or_none() is None:
        message = f"is {dataset.name}, and its version {dataset.version} was deleted: upload it again, or name another"
        raise SpecInvalid((FieldProblem("/dataset/name", "deleted_dataset", message),))


def _complete_checkpoint(connection: Connection, job_id: str | None) -> Any:
    if job_id is None:
        return None
    return connection.execute(jobs.complete_checkpoint(job_id)).first()


def _carry_over(connection: Connection, trained: Any, job_id: str) -> None:
    """The training of the first job had ended: only what comes after it is repeated."""
    connection.execute(jobs.copy_series(trained.job_id, job_id))
    connection.execute(jobs.copy_points(trained.job_id, job_id))
    copied = ("step", "attempt", "name", "sha256", "bytes", "complete", "monitor", "score", "best")
    columns = {name: getattr(trained, name) for name in copied} | {"attempt": 0}
    connection.execute(checkpoints.create(id=new_id("ckpt"), job_id=job_id, **columns))
