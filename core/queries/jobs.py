"""Statements on jobs as their owners see them; every one names the tenant."""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Insert,
    Select,
    String,
    Update,
    and_,
    column,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from core.clock import now_us
from core.queries.leases import NO_LEASE
from core.tables import checkpoints, jobs, metric_points, metric_series

OF_NONE = "none"


def create(**columns: Any) -> Insert:
    """A queued job, its first event's number reserved."""
    return insert(jobs).values(state="queued", created_at=now_us(), next_seq=2, **columns).returning(jobs)


def one(tenant_id: str, job_id: str) -> Select[Any]:
    return select(jobs).where(jobs.c.tenant_id == tenant_id, jobs.c.id == job_id)


def held(tenant_id: str, job_id: str) -> Select[Any]:
    """As `one`, and nobody else moves the job before the transaction ends."""
    return one(tenant_id, job_id).with_for_update()


def by_idempotency_key(tenant_id: str, key: str) -> Select[Any]:
    return select(jobs).where(jobs.c.tenant_id == tenant_id, jobs.c.idempotency_key == key)


def page(
    tenant_id: str,
    limit: int,
    descending: bool,
    after: Any = None,
    statuses: list[str] | None = None,
    family: str | None = None,
    metadata: dict[str, str] | None = None,
    created_after: int | None = None,
    created_before: int | None = None,
    name: str | None = None,
    comparison_id: str | None = None,
) -> Select[Any]:
    """Keyset page by (created_at, id). `after` is the row to start behind, with these two columns.

    `comparison_id`: members of this one; `OF_NONE`: jobs that are members of none.
    """
    guards: list[ColumnElement[bool]] = [jobs.c.tenant_id == tenant_id]
    if statuses:
        guards.append(or_(*(_has_status(status) for status in statuses)))
    if family:
        guards.append(jobs.c.family == family)
    if comparison_id == OF_NONE:
        guards.append(jobs.c.comparison_id.is_(None))
    elif comparison_id:
        guards.append(jobs.c.comparison_id == comparison_id)
    if name:
        guards.append(jobs.c.name == name)
    guards += [_has_metadata(key, value) for key, value in (metadata or {}).items()]
    if created_after is not None:
        guards.append(jobs.c.created_at > created_after)
    if created_before is not None:
        guards.append(jobs.c.created_at < created_before)
    if after is not None:
        guards.append(_behind(after, descending))
    keys = (jobs.c.created_at.desc(), jobs.c.id.desc()) if descending else (jobs.c.created_at, jobs.c.id)
    return select(jobs).where(*guards).order_by(*keys).limit(limit)


def latest_metrics(job_ids: list[str]) -> Select[Any]:
    """The last value of every series, without a look at the history."""
    return select(metric_series).where(metric_series.c.job_id.in_(job_ids), metric_series.c.last_step.is_not(None))


def cancel_waiting(tenant_id: str, job_id: str) -> Update:
    """Queued or paused → cancelled, at once. Reserves two events."""
    return (
        update(jobs)
        .where(jobs.c.tenant_id == tenant_id, jobs.c.id == job_id, jobs.c.state.in_(("queued", "paused")))
        .values(
            state="cancelled",
            cancel_requested_at=now_us(),
            finished_at=now_us(),
            next_seq=jobs.c.next_seq + 2,
            **NO_LEASE,
        )
        .returning(jobs, (jobs.c.next_seq - 2).label("base"))
    )


def request_cancel(tenant_id: str, job_id: str, force: bool) -> Update:
    """The flag that a running job's supervisor reads; `force` can be added later, never taken back."""
    return (
        update(jobs)
        .where(
            jobs.c.tenant_id == tenant_id,
            jobs.c.id == job_id,
            jobs.c.state == "running",
            or_(jobs.c.cancel_requested_at.is_(None), and_(literal(force), jobs.c.cancel_forced.is_(False))),
        )
        .values(
            cancel_requested_at=func.coalesce(jobs.c.cancel_requested_at, now_us()),
            cancel_forced=or_(jobs.c.cancel_forced, literal(force)),
            next_seq=jobs.c.next_seq + 1,
        )
        .returning(jobs, (jobs.c.next_seq - 1).label("base"))
    )


def request_pause(tenant_id: str, job_id: str) -> Update:
    """The flag that a running job's supervisor reads. Zero rows: not running, or already asked."""
    return (
        update(jobs)
        .where(
            jobs.c.tenant_id == tenant_id,
            jobs.c.id == job_id,
            jobs.c.state == "running",
            jobs.c.pause_requested_at.is_(None),
            jobs.c.cancel_requested_at.is_(None),
        )
        .values(pause_requested_at=now_us(), next_seq=jobs.c.next_seq + 1)
        .returning(jobs, (jobs.c.next_seq - 1).label("base"))
    )


def resume(tenant_id: str, job_id: str) -> Update:
    """Paused → queued; the time in the queue begins anew."""
    return (
        update(jobs)
        .where(jobs.c.tenant_id == tenant_id, jobs.c.id == job_id, jobs.c.state == "paused")
        .values(state="queued", pause_requested_at=None, next_seq=jobs.c.next_seq + 1)
        .returning(jobs, (jobs.c.next_seq - 1).label("base"))
    )


def recent_step_rates(limit: int) -> Select[Any]:
    """FLOPs a step and the result (with `steps_per_second`) of the newest succeeded jobs, of all tenants."""
    return (
        select(jobs.c.family, jobs.c.flops_per_step, jobs.c.result)
        .where(jobs.c.state == "succeeded", jobs.c.flops_per_step > 0)
        .order_by(jobs.c.created_at.desc())
        .limit(limit)
    )


def counts_by_state() -> Select[Any]:
    return select(jobs.c.state, func.count().label("count")).group_by(jobs.c.state)


def copy_series(source_job_id: str, target_job_id: str, until_step: int | None = None) -> Insert:
    """The names of a job's series for another, with their latest values; of those that have points up to `until_step`,
    whose latest values are left to `latest_of_copies`."""
    columns = ("name", "last_step", "last_value", "last_nonfinite") if until_step is None else ("name",)
    source = select(
        *(metric_series.c[name] for name in columns),
        literal(target_job_id),
    ).where(metric_series.c.job_id == source_job_id)
    if until_step is not None:
        early = metric_points.c.step <= until_step
        source = source.where(exists().where(metric_points.c.series_id == metric_series.c.id, early))
    return insert(metric_series).from_select([*columns, "job_id"], source)


def latest_of_copies(job_id: str) -> Update:
    """Puts the newest point of each series beside its name."""
    here = metric_points.c.series_id == metric_series.c.id
    newest = select(func.max(metric_points.c.step)).where(here).scalar_subquery()
    inner = metric_points.alias("newest")

    def value_of(column: str) -> Any:
        at = select(func.max(metric_points.c.step)).where(here).correlate(metric_series).scalar_subquery()
        chosen = select(inner.c[column]).where(inner.c.series_id == metric_series.c.id, inner.c.step == at)
        return chosen.correlate(metric_series).scalar_subquery()

    return (
        update(metric_series)
        .where(metric_series.c.job_id == job_id)
        .values(
            last_step=newest,
            last_value=value_of("value"),
            last_nonfinite=func.coalesce(value_of("nonfinite"), 0),
        )
    )


def copy_points(source_job_id: str, target_job_id: str, until_step: int | None = None) -> Insert:
    """After `copy_series`: the points of one job, up to a step, under the series of the same names of another."""
    old, new = metric_series.alias("old"), metric_series.alias("new")
    source = (
        select(new.c.id, metric_points.c.step, metric_points.c.value, metric_points.c.nonfinite)
        .join_from(metric_points, old, metric_points.c.series_id == old.c.id)
        .join(new, new.c.name == old.c.name)
        .where(old.c.job_id == source_job_id, new.c.job_id == target_job_id)
    )
    if until_step is not None:
        source = source.where(metric_points.c.step <= until_step)
    return insert(metric_points).from_select(["series_id", "step", "value", "nonfinite"], source)


def complete_checkpoint(job_id: str) -> Select[Any]:
    return select(checkpoints).where(checkpoints.c.job_id == job_id, checkpoints.c.complete.is_(True))


class _json_pairs(FunctionElement[Any]):
    """(key, value) of each field of a JSON object. A JSON path would not do: SQLite compares it with the
    stored text, escapes and all, and can not say a quote in it."""

    inherit_cache = True


@compiles(_json_pairs, "sqlite")
def _sqlite_pairs(element: _json_pairs, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_json_pairs, "postgresql")
def _postgresql_pairs(element: _json_pairs, compiler: Any, **options: Any) -> str:
    return f"jsonb_each_text({compiler.process(element.clauses, **options)})"


def _has_metadata(key: str, value: str) -> ColumnElement[bool]:
    pairs = _json_pairs(jobs.c.metadata).table_valued(column("key", String), column("value", String))
    return exists().where(pairs.c.key == key, pairs.c.value == value)


def _has_status(status: str) -> ColumnElement[bool]:
    if status == "cancelling":
        return and_(jobs.c.state == "running", jobs.c.cancel_requested_at.is_not(None))
    if status == "pausing":
        return and_(
            jobs.c.state == "running", jobs.c.pause_requested_at.is_not(None), jobs.c.cancel_requested_at.is_(None)
        )
    if status == "running":
        return and_(
            jobs.c.state == "running", jobs.c.cancel_requested_at.is_(None), jobs.c.pause_requested_at.is_(None)
        )
    return jobs.c.state == status


def _behind(row: Any, descending: bool) -> ColumnElement[bool]:
    if descending:
        return or_(jobs.c.created_at < row.created_at, and_(jobs.c.created_at == row.created_at, jobs.c.id < row.id))
    return or_(jobs.c.created_at > row.created_at, and_(jobs.c.created_at == row.created_at, jobs.c.id > row.id))
