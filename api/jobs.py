"""Reading jobs: one of a tenant's, a page of them, their latest metrics."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

from fastapi import Query, Request, Response
from pydantic import AwareDatetime
from sqlalchemy import Connection

from api.identified import missing
from api.pagination import Page, PageQuery, bad_query, unknown_cursor
from api.schemas.jobs import Job, job_of
from core.db import Database
from core.queries import jobs
from core.states import Status

METADATA = re.compile(r"\Ametadata\[(.*)\]\Z", re.DOTALL)
COMPARISON = re.compile(r"cmp_[a-z0-9]{1,34}")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class JobFilters:
    statuses: list[str]
    family: str | None
    name: str | None
    metadata: dict[str, str]
    comparison: str | None
    created_after: int | None  # microseconds
    created_before: int | None
    with_latest_metrics: bool


async def job_filters(
    request: Request,
    status: Annotated[str | None, Query(description="One or more, with commas", examples=["queued,running"])] = None,
    family: Annotated[str | None, Query(max_length=32)] = None,
    name: Annotated[str | None, Query(max_length=63)] = None,
    comparison: Annotated[
        str | None, Query(max_length=40, description="Members of this comparison; `none`: of no comparison")
    ] = None,
    created_after: Annotated[AwareDatetime | None, Query(description="RFC 3339")] = None,
    created_before: Annotated[AwareDatetime | None, Query(description="RFC 3339")] = None,
    include: Annotated[Literal["latest_metrics"] | None, Query()] = None,
    metadata: Annotated[
        str | None, Query(alias="metadata[key]", description="A value of the job's metadata; for any key, and several")
    ] = None,
) -> JobFilters:
    return JobFilters(
        statuses=_statuses(status),
        family=family,
        name=name,
        metadata={key: value for name, value in request.query_params.multi_items() for key in METADATA.findall(name)},
        comparison=_comparison(comparison),
        created_after=_microseconds(created_after),
        created_before=_microseconds(created_before),
        with_latest_metrics=include is not None,
    )


def find_job(connection: Connection, tenant_id: str, job_id: str) -> Any:
    """The row. Raises NotFound, for another tenant's job too."""
    row = connection.execute(jobs.one(tenant_id, job_id)).one_or_none()
    if row is None:
        raise missing("job", job_id)
    return row


def created(response: Response, row: Any, replayed: bool) -> Job:
    """The answer of whatever makes a job, or has made it for an earlier request of the same key."""
    response.headers["Location"] = f"/v1/jobs/{row.id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return job_of(row, {})


def latest_metrics(connection: Connection, job_ids: list[str]) -> dict[str, dict[str, float | None]]:
    """By job, the last value of each series; null where it is no number."""
    found: dict[str, dict[str, float | None]] = {job_id: {} for job_id in job_ids}
    for row in connection.execute(jobs.latest_metrics(job_ids)):
        found[row.job_id][row.name] = None if row.last_nonfinite else row.last_value
    return found


def list_jobs(database: Database, tenant_id: str, query: PageQuery, filters: JobFilters) -> Page[Job]:
    with database.read() as connection:
        cursor = None
        if query.cursor is not None:
            cursor = connection.execute(jobs.one(tenant_id, query.cursor)).one_or_none()
            if cursor is None:
                raise unknown_cursor(query)
        rows = connection.execute(
            jobs.page(
                tenant_id,
                query.rows,
                query.descending,
                cursor,
                filters.statuses,
                filters.family,
                filters.metadata,
                filters.created_after,
                filters.created_before,
                filters.name,
                filters.comparison,
            )
        ).all()
        kept, has_more = query.cut(rows)
        ids = [row.id for row in kept]
        latest = latest_metrics(connection, ids) if filters.with_latest_metrics else {}
    return Page[Job].of([job_of(row, latest.get(row.id)) for row in kept], ids, has_more)


def page_of_members(
    connection: Connection, tenant_id: str, comparison_id: str, query: PageQuery, with_latest_metrics: bool
) -> Page[Job]:
    """Jobs of a comparison. Raises InputInvalid when the cursor is none of them."""
    cursor = None
    if query.cursor is not None:
        cursor = connection.execute(jobs.one(tenant_id, query.cursor)).one_or_none()
        if cursor is None or cursor.comparison_id != comparison_id:
            raise unknown_cursor(query)
    statement = jobs.page(tenant_id, query.rows, query.descending, cursor, comparison_id=comparison_id)
    kept, has_more = query.cut(connection.execute(statement).all())
    ids = [row.id for row in kept]
    latest = latest_metrics(connection, ids) if with_latest_metrics else {}
    return Page[Job].of([job_of(row, latest.get(row.id)) for row in kept], ids, has_more)


def _statuses(text: str | None) -> list[str]:
    given = [] if text is None else text.split(",")
    for status in given:
        if status not in get_args(Status):
            allowed = ", ".join(get_args(Status))
            raise bad_query("status", "unknown_status", f"{status!r} is no status: use {allowed}")
    return given


def _comparison(text: str | None) -> str | None:
    if text is not None and text != jobs.OF_NONE and not COMPARISON.fullmatch(text):
        raise bad_query("comparison", "no_comparison", f"{text!r} is no comparison: give an id (cmp_…), or none")
    return text


def _microseconds(time: datetime | None) -> int | None:
    return None if time is None else (time - EPOCH) // timedelta(microseconds=1)
