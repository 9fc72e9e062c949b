"""Statements on comparisons and their members; every one that a request leads to names the tenant."""

from typing import Any

from sqlalchemy import ColumnElement, Insert, Select, Update, and_, insert, or_, select, update

from core.clock import now_us
from core.queries.leases import NO_LEASE
from core.states import TERMINAL
from core.tables import comparisons, events, jobs, metric_points, metric_series

DIVERGED = ("non_finite_loss", "non_finite_statistics")
"""Codes of errors that are a finding about a variant, not a failure to run it."""


def create(**columns: Any) -> Insert:
    return insert(comparisons).values(created_at=now_us(), **columns).returning(comparisons)


def create_members(rows: list[dict[str, Any]]) -> Insert:
    """Queued jobs, their first event's number reserved. A microsecond between them lets them run in this order."""
    queued = {"state": "queued", "next_seq": 2}
    return insert(jobs).values([queued | {"created_at": now_us() + place} | row for place, row in enumerate(rows)])


def create_first_events(job_ids: list[str]) -> Insert:
    first = {"seq": 1, "type": "status", "level": "info", "message": "queued", "attempt": 0}
    common = first | {"data": {"status": "queued"}, "created_at": now_us()}
    return insert(events).values([{"job_id": job_id} | common for job_id in job_ids])


def one(tenant_id: str, comparison_id: str) -> Select[Any]:
    return select(comparisons).where(comparisons.c.tenant_id == tenant_id, comparisons.c.id == comparison_id)


def by_id(comparison_id: str) -> Select[Any]:
    """For the service itself, whoever's it is."""
    return select(comparisons).where(comparisons.c.id == comparison_id)


def held(comparison_id: str) -> Select[Any]:
    """As `by_id`, and nobody else goes on with its search before the transaction ends."""
    return by_id(comparison_id).with_for_update()


def searching() -> Select[Any]:
    """Ids of comparisons whose search has rounds to come."""
    return select(comparisons.c.id).where(comparisons.c.searching.is_(True)).order_by(comparisons.c.id)


def go_on(comparison_id: str, plan: dict[str, Any], searching: bool) -> Update:
    return update(comparisons).where(comparisons.c.id == comparison_id).values(plan=plan, searching=searching)


def end_search(comparison_id: str) -> Update:
    return update(comparisons).where(comparisons.c.id == comparison_id).values(searching=False)


def by_idempotency_key(tenant_id: str, key: str) -> Select[Any]:
    return select(comparisons).where(comparisons.c.tenant_id == tenant_id, comparisons.c.idempotency_key == key)


def page(tenant_id: str, limit: int, descending: bool, after: Any = None, name: str | None = None) -> Select[Any]:
    """Keyset page by (created_at, id). `after` is the row to start behind, with these two columns."""
    guards: list[ColumnElement[bool]] = [comparisons.c.tenant_id == tenant_id]
    if name is not None:
        guards.append(comparisons.c.name == name)
    created_at, key = comparisons.c.created_at, comparisons.c.id
    if after is not None and descending:
        guards.append(or_(created_at < after.created_at, and_(created_at == after.created_at, key < after.id)))
    elif after is not None:
        guards.append(or_(created_at > after.created_at, and_(created_at == after.created_at, key > after.id)))
    keys = (created_at.desc(), key.desc()) if descending else (created_at, key)
    return select(comparisons).where(*guards).order_by(*keys).limit(limit)


def members(comparison_id: str) -> Select[Any]:
    """All jobs of a comparison, retries included, in the order in which they were made."""
    return select(jobs).where(jobs.c.comparison_id == comparison_id).order_by(jobs.c.created_at, jobs.c.id)


def states(comparison_ids: list[str]) -> Select[Any]:
    """As `members`, of many comparisons, and only what their status is made of."""
    return (
        select(
            jobs.c.id,
            jobs.c.comparison_id,
            jobs.c.variant,
            jobs.c.seed,
            jobs.c.state,
            jobs.c.attempt,
            jobs.c.step,
            jobs.c.steps,
            jobs.c.error,
            jobs.c.cancel_requested_at,
            jobs.c.started_at,
            jobs.c.finished_at,
        )
        .where(jobs.c.comparison_id.in_(comparison_ids))
        .order_by(jobs.c.created_at, jobs.c.id)
    )


def hold_open_members(comparison_id: str) -> Select[Any]:
    """Members that have not ended, held against workers and reaper, in the order of their ids."""
    return (
        select(jobs.c.id)
        .where(jobs.c.comparison_id == comparison_id, jobs.c.state.not_in(TERMINAL))
        .order_by(jobs.c.id)
        .with_for_update()
    )


def request_cancel(tenant_id: str, comparison_id: str) -> Update:
    """Zero rows: not the tenant's, or asked before."""
    return (
        update(comparisons)
        .where(
            comparisons.c.tenant_id == tenant_id,
            comparisons.c.id == comparison_id,
            comparisons.c.cancel_requested_at.is_(None),
        )
        .values(cancel_requested_at=now_us())
        .returning(comparisons)
    )


def cancel_waiting_members(comparison_id: str) -> Update:
    """Queued or paused → cancelled, at once. Reserves two events each."""
    return (
        update(jobs)
        .where(jobs.c.comparison_id == comparison_id, jobs.c.state.in_(("queued", "paused")))
        .values(
            state="cancelled",
            cancel_requested_at=now_us(),
            finished_at=now_us(),
            next_seq=jobs.c.next_seq + 2,
            **NO_LEASE,
        )
        .returning(jobs.c.id, jobs.c.attempt, (jobs.c.next_seq - 2).label("base"))
    )


def request_cancel_of_members(comparison_id: str) -> Update:
    """The flag that the supervisors of running members read. Reserves an event each."""
    return (
        update(jobs)
        .where(
            jobs.c.comparison_id == comparison_id,
            jobs.c.state == "running",
            jobs.c.cancel_requested_at.is_(None),
        )
        .values(cancel_requested_at=now_us(), next_seq=jobs.c.next_seq + 1)
        .returning(jobs.c.id, jobs.c.attempt, (jobs.c.next_seq - 1).label("base"))
    )


def points(comparison_id: str, names: list[str]) -> Select[Any]:
    """(job_id, name, step, value, nonfinite) of these series of all members, in the order of steps."""
    return (
        _points(comparison_id)
        .where(metric_series.c.name.in_(names))
        .order_by(metric_points.c.series_id, metric_points.c.step)
    )


def last_points(comparison_id: str, name: str, steps: int) -> Select[Any]:
    """As `points`, of the last `steps` steps of one series."""
    return (
        _points(comparison_id)
        .where(metric_series.c.name == name, metric_points.c.step > metric_series.c.last_step - steps)
        .order_by(metric_points.c.series_id, metric_points.c.step)
    )


def latest(comparison_id: str, names: list[str]) -> Select[Any]:
    """(job_id, name, value, nonfinite) of the newest point of these series of all members."""
    return (
        select(
            metric_series.c.job_id,
            metric_series.c.name,
            metric_series.c.last_value.label("value"),
            metric_series.c.last_nonfinite.label("nonfinite"),
        )
        .join_from(metric_series, jobs, metric_series.c.job_id == jobs.c.id)
        .where(jobs.c.comparison_id == comparison_id, metric_series.c.name.in_(names), metric_series.c.last_step > 0)
    )


def _points(comparison_id: str) -> Select[Any]:
    return (
        select(
            metric_series.c.job_id,
            metric_series.c.name,
            metric_points.c.step,
            metric_points.c.value,
            metric_points.c.nonfinite,
        )
        .join_from(metric_series, jobs, metric_series.c.job_id == jobs.c.id)
        .join(metric_points, metric_points.c.series_id == metric_series.c.id)
        .where(jobs.c.comparison_id == comparison_id)
    )
