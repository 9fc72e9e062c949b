"""From a job's checkpoint and some changed fields to a queued job that goes on from there."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from api.bodies import validated
from api.jobs import find_job
from api.submission import Submission, admitted, mismatch
from bn_models.architecture.forks import unfit
from core.db import Database
from core.errors import Conflict, FieldProblem, SpecInvalid
from core.queries import checkpoints, jobs
from core.settings import Settings
from core.spec import JobSpec
from core.spec.base import canonical_json
from core.spec.comparison import as_name
from core.spec.fork import ForkRequest, ForkSpec
from core.spec.problems import pointer
from core.spec.variation import problems_of_paths, put

SERVICE_FIELDS = ("recalibration", "ensemble", "fork")
NOT_FORKED = dict.fromkeys(SERVICE_FIELDS, "it is written by the service")


def replayed(database: Database, tenant_id: str, job_id: str, body: Any, key: str | None) -> Any:
    """The job that an earlier request with this idempotency key made, or None. Asked before a checkpoint is looked
    up, because newer ones may have come. Raises NotFound, SpecInvalid, IdempotencyMismatch."""
    with database.read() as connection:
        find_job(connection, tenant_id, job_id)
        request = validated(ForkRequest, body)
        row = None if key is None else connection.execute(jobs.by_idempotency_key(tenant_id, key)).one_or_none()
    if key is None or row is None:
        return None
    if (row.spec.get("fork") or {}).get("request_sha256") != request_digest(job_id, request):
        raise mismatch(key, row)
    return row


def prepared(
    database: Database, tenant_id: str, job_id: str, body: Any, key: str | None, settings: Settings
) -> Submission:
    """What is to be queued. Raises SpecInvalid with every problem found, Conflict when there is no such checkpoint."""
    request = validated(ForkRequest, body)
    with database.read() as connection:
        source = find_job(connection, tenant_id, job_id)
        checkpoint = _checkpoint(connection, source, request.checkpoint)
    lineage = ForkSpec(
        job_id=job_id,
        step=checkpoint.step,
        checkpoint_sha256=checkpoint.sha256,
        request_sha256=request_digest(job_id, request),
    )
    spec, flops_per_step = forked(source.spec, request.changes, lineage, settings)
    return Submission(tenant_id, spec, flops_per_step, key)


def forked(
    source: dict[str, Any], changes: dict[str, Any], lineage: ForkSpec, settings: Settings
) -> tuple[JobSpec, int]:
    """The spec that goes on from a checkpoint of a job of `source`, and the FLOPs of a step.

    Raises SpecInvalid with every problem found, at the path of the change that makes it.
    """
    wrong = tuple(problems_of_paths(tuple(changes), "/changes", NOT_FORKED))
    if wrong:
        raise SpecInvalid(wrong)
    before: dict[str, Any] = {name: value for name, value in source.items() if name not in SERVICE_FIELDS}
    body = json.loads(json.dumps(before)) | {"name": as_name(before["name"], end="-fork")}
    for path, value in changes.items():
        put(body, path, value, ("changes",))
    try:
        spec, plan = admitted(body, settings)
    except SpecInvalid as error:
        raise SpecInvalid(tuple(_placed(problem, changes) for problem in error.problems)) from None
    problems = tuple(_placed(problem, changes) for problem in _unfit(before, spec, lineage.step))
    if problems:
        raise SpecInvalid(problems)
    return spec.model_copy(update={"fork": lineage}), plan.flops_per_step


def request_digest(job_id: str, request: ForkRequest) -> str:
    return hashlib.sha256(canonical_json([job_id, request.model_dump(mode="json")])).hexdigest()


def _unfit(before: dict[str, Any], spec: JobSpec, step: int) -> Iterator[FieldProblem]:
    yield from unfit(validated(JobSpec, before), spec, step)


def _checkpoint(connection: Connection, source: Any, wanted: str) -> Any:
    for kind in ("recalibration", "ensemble"):
        if source.spec.get(kind) is not None:
            told = f"job {source.id} is a job of kind {kind}, which trains nothing"
            raise Conflict(f"{told}: fork a job that trained a version")
    found = connection.execute(checkpoints.of_job(source.id)).all()
    if not found:
        raise Conflict(f"job {source.id} has no checkpoint yet: wait for its first (training.checkpoint_every)")
    if wanted == "newest":
        return found[0]
    chosen = [row for row in found if row.id == wanted or (wanted == "best" and row.best)]
    if not chosen:
        kept = ", ".join(f"{row.id} (step {row.step})" for row in found)
        message = f"is {wanted!r:.50}, and job {source.id} keeps {kept}: take one of these, or newest"
        raise SpecInvalid((FieldProblem("/checkpoint", "no_such_checkpoint", message),))
    return chosen[0]


def _placed(problem: FieldProblem, changes: dict[str, Any]) -> FieldProblem:
    """At the change that makes it, as far as one does; a problem of what was left as it was, at its own place."""
    for path in sorted(changes, key=len, reverse=True):
        there = pointer(tuple(path.split(".")))
        change = pointer(("changes", path))
        if f"{problem.pointer}/".startswith(f"{there}/"):
            return replace(problem, pointer=change + problem.pointer.removeprefix(there))
        if problem.pointer and there.startswith(f"{problem.pointer}/"):
            return replace(problem, pointer=change)
    return problem
