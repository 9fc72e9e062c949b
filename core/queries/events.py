"""Statements on a job's gap-free log. `seq` comes from `jobs.next_seq`, whose row is locked to the commit."""

from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Insert, Select, insert, select

from core.clock import now_us
from core.tables import events, jobs

EventType = Literal["status", "phase", "metrics", "log", "checkpoint", "rewind", "end"]
Level = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class EventDraft:
    """An event before it has its number."""

    type: EventType
    message: str
    data: dict[str, Any] = field(default_factory=dict)
    level: Level = "info"


def append(job_id: str, base: int, attempt: int, drafts: list[EventDraft]) -> Insert:
    """Rows `base`, `base`+1, …; `base` was taken in the same transaction by a `reserve` or a transition."""
    return insert(events).values(
        [
            {
                "job_id": job_id,
                "seq": base + offset,
                "type": draft.type,
                "level": draft.level,
                "message": draft.message,
                "attempt": attempt,
                "data": draft.data,
                "created_at": now_us(),
            }
            for offset, draft in enumerate(drafts)
        ]
    )


def after(job_id: str, seq: int, limit: int) -> Select[Any]:
    return select(events).where(events.c.job_id == job_id, events.c.seq > seq).order_by(events.c.seq).limit(limit)


def between(job_id: str, after: int, before: int | None, limit: int, descending: bool) -> Select[Any]:
    """Events with after < seq (< before), the oldest or the newest first."""
    statement = select(events).where(events.c.job_id == job_id, events.c.seq > after)
    if before is not None:
        statement = statement.where(events.c.seq < before)
    return statement.order_by(events.c.seq.desc() if descending else events.c.seq).limit(limit)


def heads(job_ids: list[str]) -> Select[Any]:
    """The number of the last event of each of these jobs, in one cheap read for all waiting streams."""
    return select(jobs.c.id, (jobs.c.next_seq - 1).label("last_seq")).where(jobs.c.id.in_(job_ids))


def before(job_id: str, seq: int, limit: int) -> Select[Any]:
    """The newest first."""
    return (
        select(events).where(events.c.job_id == job_id, events.c.seq < seq).order_by(events.c.seq.desc()).limit(limit)
    )


def newest(job_id: str) -> Select[Any]:
    """State and the number of the last event; the cheap question of a waiting stream."""
    return select(jobs.c.state, (jobs.c.next_seq - 1).label("last_seq")).where(jobs.c.id == job_id)


def log_lines(job_id: str, seq: int, limit: int) -> Select[Any]:
    return (
        select(events)
        .where(events.c.job_id == job_id, events.c.seq > seq, events.c.type == "log")
        .order_by(events.c.seq)
        .limit(limit)
    )
