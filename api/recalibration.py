"""From a published version and a data set to a queued job that measures new population statistics."""

import hashlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection

from api.bodies import validated
from api.datasets import columns_of, pinned
from api.models import find_model, find_version, resolve
from api.submission import Submission, admitted, mismatch
from core.db import Database
from core.errors import FieldProblem, NotFound, SpecInvalid
from core.queries import jobs
from core.settings import Settings
from core.spec import JobSpec
from core.spec.base import canonical_json
from core.spec.fork import ForkSpec
from core.spec.recalibration import RecalibrationRequest, RecalibrationSpec

LEAST_SAMPLES = 2


def replayed(database: Database, tenant_id: str, name: str, body: Any, key: str | None) -> Any:
    """The job that an earlier request with this idempotency key made, or None.

    Asked before the alias is looked up, because it may have moved meanwhile. Raises NotFound when there is no
    such model, SpecInvalid, and IdempotencyMismatch when the key was used with another body.
    """
    with database.read() as connection:
        find_model(connection, tenant_id, name)
        request = validated(RecalibrationRequest, body)
        if key is None:
            return None
        row = connection.execute(jobs.by_idempotency_key(tenant_id, key)).one_or_none()
    if row is None:
        return None
    if (row.spec.get("recalibration") or {}).get("request_sha256") != request_digest(name, request):
        raise mismatch(key, row)
    return row


def prepared(database: Database, tenant_id: str, name: str, body: Any, key: str | None) -> Submission:
    """What is to be queued.

    Raises SpecInvalid with every problem found, NotFound when there is no such model or version.
    """
    digest = request_digest(name, validated(RecalibrationRequest, body))
    body = pinned(database, tenant_id, body)
    request = validated(RecalibrationRequest, body)
    with database.read() as connection:
        version, base = _base(connection, tenant_id, name, request)
        columns = columns_of(connection, tenant_id, request.dataset)
    problems = (*_problems(name, version, request), *_of_columns(name, version, request, columns))
    if problems:
        raise SpecInvalid(problems)
    dataset = dict(body["dataset"])
    scaling = base["dataset"]["scaling"]
    if dataset.setdefault("scaling", scaling) != scaling:
        _refuse(
            "/dataset/scaling",
            "scaling_of_the_model",
            f"is {dataset['scaling']!r}, and the model scales its inputs by {scaling!r}, with the figures it was "
            "trained with: leave it out",
        )
    request = validated(RecalibrationRequest, body | {"dataset": dataset})
    return Submission(tenant_id, _job_spec(name, version, base, request, digest), 0, key)


def request_digest(name: str, request: RecalibrationRequest) -> str:
    return hashlib.sha256(canonical_json([name, request.model_dump(mode="json")])).hexdigest()


def admitted_again(spec: dict[str, Any], settings: Settings) -> tuple[JobSpec, int]:
    """The spec of a job that was admitted before, for a retry, and the FLOPs of a step.

    Raises SpecInvalid when it would not be admitted today.
    """
    if spec.get("recalibration") is not None or spec.get("ensemble") is not None:
        return validated(JobSpec, spec), 0
    known, plan = admitted({name: value for name, value in spec.items() if name != "fork"}, settings)
    fork = spec.get("fork")
    lineage = None if fork is None else ForkSpec.model_validate(fork)
    return known.model_copy(update={"fork": lineage}), plan.flops_per_step


def _base(
    connection: Connection, tenant_id: str, name: str, request: RecalibrationRequest
) -> tuple[Any, dict[str, Any]]:
    """(row of the version, spec of the job that made it)."""
    found = resolve(connection, tenant_id, name, request.version, request.alias)
    version = find_version(connection, find_model(connection, tenant_id, name), found.version)
    job = connection.execute(jobs.one(tenant_id, version.job_id)).one_or_none()
    if job is None:
        raise NotFound(f"version {version.version} of model {name} is of a job that is no longer there")
    return version, {part: value for part, value in job.spec.items() if part != "recalibration"}


def _problems(name: str, version: Any, request: RecalibrationRequest) -> Iterator[FieldProblem]:
    shape, facts = tuple(version.card["input"]["shape"]), request.dataset.facts
    if version.card.get("ensemble") is not None:
        message = f"version {version.version} of {name} is an ensemble: recalibrate its members, and average them anew"
        yield FieldProblem("/version" if request.version else "", "is_an_ensemble", message)
        return
    if version.statistics_sha256 is None:
        message = f"version {version.version} of {name} has no layer with population statistics: nothing to recalibrate"
        yield FieldProblem("/version" if request.version else "", "no_statistics", message)
    missing = [file for file in ("safetensors", "card") if file not in version.artifacts]
    if missing:
        message = f"version {version.version} of {name} was published without {' and '.join(missing)}: train it anew"
        yield FieldProblem("/version" if request.version else "", "no_weights", message)
    if facts.input_shape != shape:
        message = (
            f"{request.dataset.title} has inputs of shape {list(facts.input_shape)}, and {name} takes {list(shape)}: "
            "use data of that shape"
        )
        yield FieldProblem("/dataset/source", "other_shape", message)
    if request.population.estimator == "running_average":
        message = "running_average is what training kept, and nothing is trained here: use pooled or pooled_sequential"
        yield FieldProblem("/population/estimator", "nothing_to_measure", message)
    samples = request.population.samples
    if samples is not None and samples < LEAST_SAMPLES:
        message = f"is {samples}, and one sample has no variance: set at least {LEAST_SAMPLES}, or null for all"
        yield FieldProblem("/population/samples", "too_few_samples", message)
    rows = request.dataset.split_sizes()[0]
    if rows < LEAST_SAMPLES:
        message = f"leaves {rows} rows to measure, and statistics need {LEAST_SAMPLES}: hold less out"
        yield FieldProblem("/dataset/test_fraction", "too_few_rows", message)


def _of_columns(
    name: str, version: Any, request: RecalibrationRequest, columns: list[str] | None
) -> Iterator[FieldProblem]:
    """Of an upload the names are known before it is read."""
    wanted = version.card["input"].get("columns") or []
    if columns is not None and columns != wanted:
        first = next((column for column in [*wanted, *columns] if (column in wanted) != (column in columns)), None)
        what = f"differ in {first!r}" if first is not None else "have another order"
        message = f"the columns of {request.dataset.title} and those that {name} takes {what}: give those"
        yield FieldProblem("/dataset/name", "other_columns", message)


def _job_spec(name: str, version: Any, base: dict[str, Any], request: RecalibrationRequest, digest: str) -> JobSpec:
    """The spec that made the version, on other data, and with the version that it starts from."""
    lineage = RecalibrationSpec.model_validate(
        {
            "model": name,
            "version": version.version,
            "job_id": version.job_id,
            "outputs": len(version.card["labels"] or ()) or 1,
            "weights_sha256": version.weights_sha256,
            "statistics_sha256": version.statistics_sha256,
            "safetensors": version.artifacts["safetensors"],
            "card": version.artifacts["card"],
            "request_sha256": digest,
        }
    )
    spec = base | {
        "name": request.name or f"{name}-recalibration"[:63],
        "metadata": request.metadata,
        "priority": request.priority,
        "dataset": request.dataset.model_dump(mode="json"),
        "population": request.population.model_dump(mode="json"),
        "resources": request.resources.model_dump(mode="json"),
        "training": base["training"] | {"time_limit_seconds": None, "early_stopping": None},
        "publish": {
            "model": name,
            "alias": request.publish.alias,
            "serving": (base["publish"] or {}).get("serving"),  # as the version is served that it comes from
        },
        "recalibration": lineage.model_dump(mode="json"),
    }
    return validated(JobSpec, spec)


def _refuse(pointer: str, code: str, message: str) -> None:
    raise SpecInvalid((FieldProblem(pointer, code, message),))
