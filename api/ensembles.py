"""From several published versions to a queued job that makes them answer as one model."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from api.bodies import validated
from api.models import find_model, find_version, resolve
from api.submission import Submission, mismatch
from core.db import Database
from core.errors import FieldProblem, NotFound, SpecInvalid
from core.queries import jobs
from core.settings import Settings
from core.spec import JobSpec
from core.spec.base import canonical_json
from core.spec.ensemble import EnsembleMember, EnsembleRequest, EnsembleSpec
from core.spec.problems import pointer

FILES = ("onnx", "safetensors", "card")
ALIKE = {
    ("task",): "is for another task",
    ("input", "shape"): "takes inputs of another shape",
    ("input", "kind"): "takes inputs of another kind",
    ("input", "columns"): "takes other columns, or in another order",
    ("input", "fields"): "takes columns of text that have other categories",
    ("input", "pixel_range"): "takes pixels of another range",
    ("labels",): "gives other labels, or in another order",
}
"""What must be the same in all members' cards."""
OTHER_DATA = "members were trained on other data or splits: what is a test row to one may be a training row to another"


@dataclass(frozen=True)
class Found:
    """A member: the row of its version, and that of the job that made it."""

    model: str
    version: Any
    job: Any


def replayed(database: Database, tenant_id: str, body: Any, key: str | None) -> Any:
    """The job that an earlier request with this idempotency key made, or None: asked before aliases are looked up,
    because they may have moved meanwhile. Raises SpecInvalid, and IdempotencyMismatch for another body."""
    request = validated(EnsembleRequest, body)
    if key is None:
        return None
    with database.read() as connection:
        row = connection.execute(jobs.by_idempotency_key(tenant_id, key)).one_or_none()
    if row is not None and (row.spec.get("ensemble") or {}).get("request_sha256") != _digest(request):
        raise mismatch(key, row)
    return row


def prepared(database: Database, tenant_id: str, body: Any, key: str | None, settings: Settings) -> Submission:
    """What is to be queued. Raises SpecInvalid with every problem found."""
    request = validated(EnsembleRequest, body)
    problems: list[FieldProblem] = []
    found: list[Found] = []
    with database.read() as connection:
        for place, member in enumerate(request.members):
            try:
                found.append(_version(connection, tenant_id, member))
            except NotFound as error:
                field = "job_id" if member.job_id else "model"
                problems.append(FieldProblem(pointer(("members", place, field)), "not_found", error.message))
    if not problems:
        problems += (*_problems(found), *_of_size(found, settings.maximum_parameters))
    if problems:
        raise SpecInvalid(tuple(problems))
    return Submission(tenant_id, _job_spec(found, request), 0, key)


def _digest(request: EnsembleRequest) -> str:
    return hashlib.sha256(canonical_json(request.model_dump(mode="json"))).hexdigest()


def _version(connection: Connection, tenant_id: str, member: EnsembleMember) -> Found:
    """Raises NotFound."""
    name, number = member.model or "", member.version
    if member.job_id is not None:
        job = connection.execute(jobs.one(tenant_id, member.job_id)).one_or_none()
        if job is None:
            raise NotFound(f"there is no job {member.job_id}: check it against the list of jobs")
        if job.state != "succeeded":
            raise NotFound(f"job {job.id} is {job.state}, and made no version: name one that has succeeded")
        if job.result.get("model") is None:
            raise NotFound(f"job {job.id} published nothing: train it again with `publish`, or name another")
        name, number = job.result["model"], job.result["version"]
    version = find_version(
        connection,
        find_model(connection, tenant_id, name),
        resolve(connection, tenant_id, name, number, member.alias).version,
    )
    job = connection.execute(jobs.one(tenant_id, version.job_id)).one_or_none()
    if job is None:
        raise NotFound(f"version {version.version} of model {name} is of a job that is no longer there")
    return Found(name, version, job)


def _of_size(found: list[Found], most: int) -> Iterator[FieldProblem]:
    """All members are in one trainer's memory at once, and in that of whoever serves them."""
    parameters = sum((item.job.result or {}).get("parameters", 0) for item in found)
    if parameters > most:
        message = (
            f"have {parameters:,} parameters together, and {most:,} are the most here: take fewer members, or raise "
            "EVENKEEL_MAXIMUM_PARAMETERS"
        )
        yield FieldProblem("/members", "too_many_parameters", message)


def _problems(found: list[Found]) -> Iterator[FieldProblem]:
    first_name, first = found[0].model, found[0].version
    seen: set[tuple[str, int]] = set()
    for place, item in enumerate(found):
        name, version = item.model, item.version
        at, told = pointer(("members", place)), f"version {version.version} of {name}"
        if (name, version.version) in seen:
            yield FieldProblem(at, "member_twice", f"is {told}, which is a member already: leave one out")
        seen.add((name, version.version))
        if version.card.get("ensemble") is not None:
            message = f"{told} is an ensemble itself: name its members in its place"
            yield FieldProblem(at, "ensemble_of_ensembles", message)
        missing = [file for file in FILES if file not in version.artifacts]
        if missing:
            message = f"{told} was published without {' and '.join(missing)}: train it anew"
            yield FieldProblem(at, "no_files", message)
        for path, difference in ALIKE.items():
            if _at(version.card, path) != _at(first.card, path):
                message = f"{told} {difference} than version {first.version} of {first_name}: leave one of them out"
                yield FieldProblem(at, f"other_{path[-1]}", message)
                break


def _at(card: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = card
    for part in path:
        value = value.get(part)
    return value or None


def _job_spec(found: list[Found], request: EnsembleRequest) -> JobSpec:
    """The spec that made the first member, with all members."""
    base = found[0].job.spec
    same = all(item.job.spec["dataset"] == base["dataset"] for item in found)
    members = [
        {
            "model": item.model,
            "version": item.version.version,
            "job_id": item.version.job_id,
            "weights_sha256": item.version.weights_sha256,
            "statistics_sha256": item.version.statistics_sha256,
            **{file: item.version.artifacts[file] for file in FILES},
        }
        for item in found
    ]
    lineage = {
        "members": members,
        "not_compared": None if same else OTHER_DATA,
        "request_sha256": _digest(request),
    }
    spec = {part: value for part, value in base.items() if part not in ("recalibration", "fork", "evaluation")} | {
        "name": request.name or f"{request.publish.model}-ensemble"[:63],
        "metadata": request.metadata,
        "priority": request.priority,
        "resources": request.resources.model_dump(mode="json"),
        "observe": None,
        "training": base["training"] | {"time_limit_seconds": None, "early_stopping": None},
        "publish": request.publish.model_dump(mode="json"),
        "ensemble": EnsembleSpec.model_validate(lineage).model_dump(mode="json"),
    }
    return validated(JobSpec, spec)
