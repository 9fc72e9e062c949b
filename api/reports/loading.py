"""From the database to the plain data that a report is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection

from api.members import find_comparison
from api.reports.figures import counts, figures_of, timing_of
from api.reports.members import Answers, Member, Point
from api.reports.observed import names_of
from api.reports.sentences import headline, of_the_search, sentences
from api.reports.shapes import MemberOfReport, Report
from api.schemas.comparisons import outcome_of
from api.tensors import Tensors
from core.artifacts import ArtifactStore
from core.db import Database
from core.queries import comparisons
from core.queries.metrics import value_of
from core.spec.base import canonical_json

RATE = "throughput/examples_per_second"
TRAINING_STEPS = 1000
"""The training score is taken over these last steps at most, however rare evaluations are."""
Series = Mapping[tuple[str, str], Sequence[Point]]
"""By job and name."""


def report_of(database: Database, store: ArtifactStore, tenant_id: str, comparison_id: str) -> Report:
    """The report of a comparison as the database has it now. Raises NotFound, for another tenant's too."""
    with database.read() as connection:
        row = find_comparison(connection, tenant_id, comparison_id)
        members, job_ids = _members(connection, row)
    if row.plan.get("ensemble"):
        members = [_with_answers(store, member) for member in members]
    return build(row, members, job_ids, row.spec.get("search"))


def _with_answers(store: ArtifactStore, member: Member) -> Member:
    """Raises StorageFailed when the file that a result names is not what it was."""
    file = member.result.get("answers") if counts(member) else None
    if file is None:
        return member
    tensors = Tensors(store.get(file["name"], file["sha256"]))
    return replace(member, answers=Answers(tensors["answers"], tensors["targets"]))


def _members(connection: Connection, row: Any) -> tuple[list[Member], dict[tuple[str, int], str]]:
    """As they are recorded, and their jobs by variant and seed."""
    plan = row.plan
    metric: str = plan["metric"]
    score = metric.split("/")[-1]
    newest = {(job.variant, job.seed): job for job in connection.execute(comparisons.members(row.id))}
    observed = names_of(plan)
    series = _series(connection.execute(comparisons.points(row.id, [metric, RATE, *observed])))
    training = _series(connection.execute(comparisons.last_points(row.id, f"train/{score}", TRAINING_STEPS)))
    also: dict[str, dict[str, float]] = {}
    for job_id, name, value, nonfinite in connection.execute(comparisons.latest(row.id, plan.get("also", []))):
        also.setdefault(job_id, {})[name] = value_of(value, nonfinite)
    batches = {variant["name"]: variant["batch_size"] for variant in plan["variants"]}
    members = [
        Member(
            variant=job.variant,
            seed=job.seed,
            outcome=outcome_of(job.state, job.error),  # type: ignore[arg-type]
            error=_error(job.error),
            step=job.step,
            batch_size=batches[job.variant],
            evaluations=tuple(series.get((job.id, metric), ())),
            training=tuple(training.get((job.id, f"train/{score}"), ())),
            rates=tuple(series.get((job.id, RATE), ())),
            also=also.get(job.id, {}),
            observed={name: tuple(series[(job.id, name)]) for name in observed if (job.id, name) in series},
            result=job.result or {},
        )
        for job in newest.values()
    ]
    return members, {key: job.id for key, job in newest.items()}


def build(
    row: Any,
    members: Sequence[Member],
    job_ids: Mapping[tuple[str, int], str],
    search: Mapping[str, Any] | None = None,
) -> Report:
    """`row` has id, name and plan; `search` as the comparison's spec has it."""
    figures = figures_of(row.plan, members)
    return Report(
        object="comparison_report",
        comparison_id=row.id,
        name=row.name,
        complete=not figures.missing and not getattr(row, "searching", False),
        sentence=headline(figures),
        sentences=[*of_the_search(search, row.plan, figures), *sentences(figures)],
        figures=figures,
        figures_sha256=sha256(canonical_json(asdict(figures))).hexdigest(),
        timing=timing_of(row.plan, members),
        members=[
            MemberOfReport(
                member.variant, member.seed, job_ids[(member.variant, member.seed)], member.outcome, member.step
            )
            for member in members
        ],
    )


def _series(rows: Any) -> dict[tuple[str, str], list[Point]]:
    found: dict[tuple[str, str], list[Point]] = {}
    for job_id, name, step, value, nonfinite in rows:
        found.setdefault((job_id, name), []).append((step, value_of(value, nonfinite)))
    return found


def _error(error: Mapping[str, Any] | None) -> str | None:
    return f"{error.get('code')}: {error.get('message')}" if error else None
