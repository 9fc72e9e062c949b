"""Statements that move a job between workers. Every write of a worker is guarded by the fence; zero
rows mean that the job is no longer ours, and nothing may be written."""

from typing import Any

from sqlalchemy import ColumnElement, Select, Update, and_, case, exists, func, literal, null, or_, select, update

from core.clock import microseconds, now_us
from core.tables import comparisons, jobs

NO_LEASE = {"lease_owner": None, "lease_expires_at": None, "heartbeat_at": None}


def waiting(cuda: bool) -> Select[Any]:
    """One row with `waiting`: is there a queued job that this node could run? The cheap poll."""
    return select(exists().where(*_claimable(cuda)).label("waiting"))


def full_comparisons() -> Select[Any]:
    """Ids of comparisons that have as many running members as they may. It reads the running jobs, once a claim,
    however many wait."""
    members = jobs.alias("members")
    return (
        select(comparisons.c.id)
        .join(members, and_(members.c.comparison_id == comparisons.c.id, members.c.state == "running"))
        .group_by(comparisons.c.id, comparisons.c.maximum_running)
        .having(func.count() >= comparisons.c.maximum_running)
    )


def crowded(comparison_id: str) -> Select[Any]:
    """One row with `crowded`: do more members run than may, this transaction's included?"""
    members = jobs.alias("members")
    running = (
        select(func.count())
        .select_from(members)
        .where(members.c.comparison_id == comparison_id, members.c.state == "running")
        .scalar_subquery()
    )
    return select((running > comparisons.c.maximum_running).label("crowded")).where(comparisons.c.id == comparison_id)


def lock_comparison(comparison_id: str) -> Select[Any]:
    """Held to the end of the transaction, so that claims of members of one comparison come one after the other."""
    return select(comparisons.c.maximum_running).where(comparisons.c.id == comparison_id).with_for_update()


def claim_next(owner: str, lease_seconds: float, cuda: bool) -> Update:
    """Takes the next queued job: by priority, then tenants with fewer running jobs, then age."""
    held = jobs.alias("held")
    running = (  # counted once a tenant: counted for each waiting job, a claim from a long queue took 0.2 s
        select(held.c.tenant_id, func.count().label("jobs"))
        .where(held.c.state == "running")
        .group_by(held.c.tenant_id)
        .cte("running")
    )
    chosen = (
        select(jobs.c.id)
        .join_from(jobs, running, running.c.tenant_id == jobs.c.tenant_id, isouter=True)
        .where(*_claimable(cuda))
        .order_by(jobs.c.priority.desc(), func.coalesce(running.c.jobs, 0), jobs.c.created_at, jobs.c.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=jobs)
        .scalar_subquery()
    )
    return (
        update(jobs)
        .where(jobs.c.id == chosen, jobs.c.state == "queued")
        .values(
            state="running",
            phase="loading",
            attempt=jobs.c.attempt + 1,
            attempts_without_progress=jobs.c.attempts_without_progress + 1,
            fence=jobs.c.fence + 1,
            tick=0,
            lease_owner=owner,
            lease_expires_at=now_us() + microseconds(lease_seconds),
            heartbeat_at=now_us(),
            started_at=func.coalesce(jobs.c.started_at, now_us()),
            next_seq=jobs.c.next_seq + 1,
        )
        .returning(jobs, (jobs.c.next_seq - 1).label("base"))
    )


def renew(
    job_id: str,
    fence: int,
    tick: int,
    events: int,
    *,
    lease_seconds: float,
    step: int | None = None,
    phase: str | None = None,
    fingerprint: str | None = None,
    progressed: bool = False,
) -> Update:
    """The guard of a tick: renews the lease, reserves `events` numbers, reads the flags back."""
    values: dict[str, Any] = {
        "tick": tick,
        "lease_expires_at": now_us() + microseconds(lease_seconds),
        "running_us": _running_us(),
        "heartbeat_at": now_us(),
        "next_seq": jobs.c.next_seq + events,
    }
    given = {"step": step, "phase": phase, "fingerprint": fingerprint}
    values |= {name: value for name, value in given.items() if value is not None}
    if progressed:
        values["attempts_without_progress"] = 0
    return _mine(job_id, fence).values(**values).returning(*_flags(events))


def finish(job_id: str, fence: int, tick: int, events: int, *, state: str, **columns: Any) -> Update:
    """Running → succeeded, failed or cancelled. `columns`: step, result or error."""
    return (
        _mine(job_id, fence)
        .values(
            state=state,
            tick=tick,
            phase=None,
            finished_at=now_us(),
            running_us=_running_us(),
            next_seq=jobs.c.next_seq + events,
            **columns,
            **NO_LEASE,
        )
        .returning(*_flags(events))
    )


def put_back(job_id: str, fence: int, tick: int, events: int, *, state: str, step: int | None = None) -> Update:
    """Running → queued (drained) or paused: given up in good order, so the attempt is not held against the job.
    `step`: the last one that was recorded."""
    return (
        _mine(job_id, fence)
        .values(
            state=state,
            tick=tick,
            phase=None,
            attempts_without_progress=0,
            pause_requested_at=None,
            running_us=_running_us(),
            next_seq=jobs.c.next_seq + events,
            **({} if step is None else {"step": step}),
            **NO_LEASE,
        )
        .returning(*_flags(events))
    )


def lock(job_id: str) -> Select[Any]:
    """The row, held to the end of the transaction."""
    return select(jobs).where(jobs.c.id == job_id).with_for_update()


def tick_of(job_id: str) -> Select[Any]:
    """Whose fence stands on the row, and which tick was the last to land: the answer after a commit of unknown fate."""
    return select(jobs.c.fence, jobs.c.tick, jobs.c.state).where(jobs.c.id == job_id)


LOST_EVENTS = 2
"""Numbers that each statement below reserves per row."""


def reap(attempts_without_progress: int) -> Update:
    """Every lease that has expired: back to the queue, or to its end. The whole guard is in the UPDATE, and
    the fence moves now. What another reaper holds is left to it: two that wait for each other are a deadlock."""
    now = select(now_us()).scalar_subquery()  # once: a clock that is read for each row keeps the index from being used
    expired = and_(jobs.c.state == "running", jobs.c.lease_expires_at < now)
    free = select(jobs.c.id).where(expired).with_for_update(skip_locked=True).cte("free")
    return _lose(and_(jobs.c.id.in_(select(free.c.id)), expired), attempts_without_progress, "worker_lost")


def lose(job_id: str, fence: int, attempts_without_progress: int, code: str) -> Update:
    """A supervisor's own trainer died or hung: as `reap`, at once, for this job."""
    return _lose(and_(jobs.c.id == job_id, jobs.c.fence == fence), attempts_without_progress, code)


def reclaim(node_id: str, attempts_without_progress: int) -> Update:
    """What this node had leased before it died. Only for the holder of the node's lock."""
    whose = jobs.c.lease_owner.startswith(f"{node_id}:", autoescape=True)
    return _lose(whose, attempts_without_progress, "worker_lost")


def _lose(whose: ColumnElement[bool], attempts_without_progress: int, code: str) -> Update:
    cancelled = jobs.c.cancel_requested_at.is_not(None)
    poisoned = jobs.c.attempts_without_progress >= attempts_without_progress
    paused = jobs.c.pause_requested_at.is_not(None)
    error = {
        "code": code,
        "message": f"{attempts_without_progress} attempts in a row ended without progress: see the log, then retry",
    }
    return (
        update(jobs)
        .where(jobs.c.state == "running", whose)
        .values(
            state=case((cancelled, "cancelled"), (poisoned, "failed"), (paused, "paused"), else_="queued"),
            error=case((and_(poisoned, ~cancelled), literal(error, jobs.c.error.type)), else_=null()),
            finished_at=case((or_(cancelled, poisoned), now_us()), else_=null()),
            phase=None,
            fence=jobs.c.fence + 1,
            pause_requested_at=None,
            running_us=_running_us(),
            next_seq=jobs.c.next_seq + LOST_EVENTS,
            **NO_LEASE,
        )
        .returning(
            jobs.c.id,
            jobs.c.attempt,
            jobs.c.state,
            jobs.c.error,
            jobs.c.needs_cuda,
            (jobs.c.next_seq - LOST_EVENTS).label("base"),
        )
    )


def _claimable(cuda: bool) -> list[ColumnElement[bool]]:
    alone = jobs.c.comparison_id.is_(None)
    guards = [jobs.c.state == "queued", or_(alone, jobs.c.comparison_id.not_in(full_comparisons()))]
    if not cuda:
        guards.append(jobs.c.needs_cuda.is_(False))
    return guards


def _mine(job_id: str, fence: int) -> Update:
    return update(jobs).where(jobs.c.id == job_id, jobs.c.fence == fence, jobs.c.state == "running")


def _running_us() -> ColumnElement[int]:
    """Time counts while the lease holds: not the night in which the machine was off or asleep."""
    held_until = case((jobs.c.lease_expires_at < now_us(), jobs.c.lease_expires_at), else_=now_us())
    return jobs.c.running_us + held_until - func.coalesce(jobs.c.heartbeat_at, held_until)


def _flags(events: int) -> tuple[ColumnElement[Any], ...]:
    return (
        (jobs.c.next_seq - events).label("base"),
        jobs.c.cancel_requested_at,
        jobs.c.cancel_forced,
        jobs.c.pause_requested_at,
        jobs.c.running_us,
    )
