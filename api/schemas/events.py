"""Events as clients see them."""

from typing import Any, Literal

import orjson
from pydantic import BaseModel

from core.clock import rfc3339
from core.queries.events import EventType, Level


class Event(BaseModel):
    object: Literal["event"] = "event"
    job_id: str
    seq: int
    """Gap-free per job: the event after `seq` is `seq` + 1."""
    type: EventType
    level: Level
    message: str
    attempt: int
    data: dict[str, Any]
    created_at: str


class EventPage(BaseModel):
    object: Literal["list"] = "list"
    data: list[Event]
    first_id: int | None
    last_id: int | None
    has_more: bool


class LogLine(BaseModel):
    object: Literal["log"] = "log"
    seq: int
    level: Level
    message: str
    attempt: int
    step: int | None
    created_at: str


class LogPage(BaseModel):
    object: Literal["list"] = "list"
    data: list[LogLine]
    first_id: int | None
    last_id: int | None
    has_more: bool


def event_of(row: Any) -> dict[str, Any]:
    """An `Event` as plain values: pages and streams are written without a look at each field."""
    return {
        "object": "event",
        "job_id": row.job_id,
        "seq": row.seq,
        "type": row.type,
        "level": row.level,
        "message": row.message,
        "attempt": row.attempt,
        "data": row.data,
        "created_at": rfc3339(row.created_at),
    }


def encode_event(row: Any) -> bytes:
    """JSON on one line; a number that is none is null."""
    return orjson.dumps(event_of(row))


def encode_event_page(rows: list[Any], has_more: bool) -> bytes:
    return orjson.dumps(
        {
            "object": "list",
            "data": [event_of(row) for row in rows],
            "first_id": rows[0].seq if rows else None,
            "last_id": rows[-1].seq if rows else None,
            "has_more": has_more,
        }
    )


def log_line_of(row: Any) -> LogLine:
    return LogLine(
        seq=row.seq,
        level=row.level,
        message=row.message,
        attempt=row.attempt,
        step=row.data.get("step"),
        created_at=rfc3339(row.created_at) or "",
    )
