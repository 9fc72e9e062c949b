"""A job's log: a JSON page, a long poll, or a stream; and its log lines as text."""

import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse

from api.auth import JobReader
from api.documentation import answers
from api.identified import JobId
from api.jobs import find_job
from api.pagination import Order
from api.query import KNOWN_QUERY
from api.resources import Held, Resources
from api.schemas.events import EventPage, LogPage, encode_event_page, log_line_of
from api.streaming import EventStream
from core.clock import rfc3339
from core.db import Database
from core.errors import Malformed
from core.queries import events
from core.states import TERMINAL

router = APIRouter(prefix="/v1", tags=["events"], dependencies=[KNOWN_QUERY])
LARGEST_SEQ = 2**63 - 1
STREAM = "text/event-stream"
Seq = Annotated[int, Query(ge=0, le=LARGEST_SEQ, description="Only events with a greater seq")]
PAGE_OR_STREAM = answers(
    200, "A page, or with `Accept: text/event-stream` a stream", ("application/json", EventPage), (STREAM, None)
)
DONE: dict[int | str, Any] = {204: {"description": "Stream only: the job has ended, and nothing newer is left"}}


@router.get("/jobs/{job_id}/events", responses=PAGE_OR_STREAM | DONE, response_class=Response)
async def get_events(
    caller: JobReader,
    job_id: JobId,
    request: Request,
    resources: Held,
    after: Seq | None = None,
    before: Annotated[int | None, Query(ge=0, le=LARGEST_SEQ, description="Only events with a smaller seq")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    order: Annotated[Order, Query(description="By seq")] = "asc",
    wait: Annotated[
        float, Query(ge=0.0, le=60.0, description="Seconds to wait for something newer than `after`")
    ] = 0.0,
    last_event_id: Annotated[str | None, Header(description="Where a stream goes on; wins over `after`")] = None,
) -> Response:
    """`seq` is gap-free: go on with `after` or `Last-Event-ID`, and nothing is lost or doubled."""
    if STREAM in request.headers.get("accept", ""):
        seq = _resumed(last_event_id) if last_event_id is not None else after or 0
        return await _stream(resources, caller.tenant_id, job_id, seq)
    seq = after or 0
    if wait > 0.0 and before is None and order == "asc":
        await _wait(resources, caller.tenant_id, job_id, seq, time.monotonic() + wait)
    nearest_first = order == "desc" or (before is not None and after is None)
    rows = await run_sync(_page, resources.database, caller.tenant_id, job_id, seq, before, limit + 1, nearest_first)
    kept = list(rows[:limit])
    if nearest_first and order == "asc":
        kept.reverse()
    return Response(encode_event_page(kept, len(rows) > limit), media_type="application/json")


@router.get(
    "/jobs/{job_id}/logs", responses=answers(200, "Log lines", ("application/json", LogPage), ("text/plain", None))
)
def get_logs(
    caller: JobReader,
    job_id: JobId,
    request: Request,
    resources: Held,
    after: Seq = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> Response:
    """What the trainer logged, oldest first; one line each with `Accept: text/plain`."""
    with resources.database.read() as connection:
        find_job(connection, caller.tenant_id, job_id)
        rows = connection.execute(events.log_lines(job_id, after, limit + 1)).all()
    kept = rows[:limit]
    if "text/plain" in request.headers.get("accept", ""):
        return PlainTextResponse(
            "".join(f"{rfc3339(row.created_at)} {row.level.upper()} {row.message}\n" for row in kept)
        )
    page = LogPage(
        data=[log_line_of(row) for row in kept],
        first_id=kept[0].seq if kept else None,
        last_id=kept[-1].seq if kept else None,
        has_more=len(rows) > limit,
    )
    return Response(page.model_dump_json(), media_type="application/json")


async def _stream(resources: Resources, tenant_id: str, job_id: str, seq: int) -> Response:
    state, last_seq = await run_sync(_newest, resources.database, tenant_id, job_id)
    if state in TERMINAL and last_seq <= seq:
        return Response(status_code=204)
    return EventStream(resources.streams.frames(job_id, seq))


async def _wait(resources: Resources, tenant_id: str, job_id: str, seq: int, deadline: float) -> None:
    """Until something newer than `seq` exists, nothing can come any more, or time is up."""
    state, last_seq = await run_sync(_newest, resources.database, tenant_id, job_id)
    if last_seq <= seq and state not in TERMINAL:
        await resources.streams.wait(job_id, seq, deadline)


def _newest(database: Database, tenant_id: str, job_id: str) -> tuple[str, int]:
    with database.read() as connection:
        row = find_job(connection, tenant_id, job_id)
    return row.state, row.next_seq - 1


def _page(
    database: Database, tenant_id: str, job_id: str, after: int, before: int | None, rows: int, descending: bool
) -> Sequence[Any]:
    with database.read() as connection:
        find_job(connection, tenant_id, job_id)
        return connection.execute(events.between(job_id, after, before, rows, descending)).all()


def _resumed(last_event_id: str) -> int:
    if re.fullmatch(r"[0-9]{1,18}", last_event_id) is None:
        raise Malformed(f"Last-Event-ID {last_event_id[:40]!r} is no seq: send the last `id:` that you read, or none")
    return int(last_event_id)
