"""What a user may ask of a job. The row is held first, so that no worker or reaper moves it meanwhile; then
it moves by one guarded UPDATE with its events in the same transaction, or what was found says why not."""

from typing import Any, Literal

from sqlalchemy import Connection, Update

from api.identified import missing
from core.db import Database
from core.errors import Conflict
from core.queries import events, jobs
from core.queries.events import EventDraft
from core.states import TERMINAL, status_of

Changed = tuple[Any, bool]
"""(the job's row, whether this request changed it)."""


def cancel(database: Database, tenant_id: str, job_id: str, force: bool) -> Changed:
    """Raises Conflict when the job ended otherwise, NotFound when it is not the tenant's."""
    with database.write() as connection:
        found = _hold(connection, tenant_id, job_id)
        row = connection.execute(jobs.cancel_waiting(tenant_id, job_id)).one_or_none()
        if row is not None:
            ended = {"status": "cancelled"}
            _append(connection, row, EventDraft("status", "cancelled", ended), EventDraft("end", "cancelled", ended))
            return row, True
        how = "cancelling, by force" if force else "cancelling"
        return _request(connection, jobs.request_cancel(tenant_id, job_id, force), found, "cancelling", how)


def pause(database: Database, tenant_id: str, job_id: str) -> Changed:
    with database.write() as connection:
        found = _hold(connection, tenant_id, job_id)
        return _request(connection, jobs.request_pause(tenant_id, job_id), found, "pausing", "pausing")


def resume(database: Database, tenant_id: str, job_id: str) -> Changed:
    with database.write() as connection:
        found = _hold(connection, tenant_id, job_id)
        return _request(connection, jobs.resume(tenant_id, job_id), found, "queued", "queued again")


def require_terminal(row: Any) -> None:
    """Raises Conflict unless the job has ended: only then is there something to retry."""
    if row.state not in TERMINAL:
        raise Conflict(f"job {row.id} is {row.state}: only a job that has ended can be retried; cancel it first")


ALREADY = {
    "cancelling": ("cancelling", "cancelled"),
    "pausing": ("pausing", "paused"),
    "queued": ("queued", "running"),
}
REMEDIES = {
    ("cancelling", "succeeded"): "it has its result, and there is nothing left to stop",
    ("cancelling", "failed"): "it has ended on its own, and there is nothing left to stop",
    ("pausing", "queued"): "nothing runs yet: cancel it, or wait until it is running",
    ("pausing", "cancelling"): "it is about to end",
    ("queued", "pausing"): "it is still writing its checkpoint: try again when it is paused",
    ("queued", "cancelling"): "it is about to end",
}
VERBS = {"cancelling": "cancelled", "pausing": "paused", "queued": "resumed"}


def _hold(connection: Connection, tenant_id: str, job_id: str) -> Any:
    row = connection.execute(jobs.held(tenant_id, job_id)).one_or_none()
    if row is None:
        raise missing("job", job_id)
    return row


def _request(
    connection: Connection,
    statement: Update,
    found: Any,
    status: Literal["cancelling", "pausing", "queued"],
    message: str,
) -> Changed:
    row = connection.execute(statement).one_or_none()
    if row is not None:
        _append(connection, row, EventDraft("status", message, {"status": status}))
        return row, True
    now = status_of(found.state, found.cancel_requested_at is not None, found.pause_requested_at is not None)
    if now in ALREADY[status]:
        return found, False
    raise _refusal(found.id, status, now)


def _refusal(job_id: str, wanted: str, now: str) -> Conflict:
    remedy = REMEDIES.get((wanted, now), "it has ended: `retry` makes a new job of its spec")
    return Conflict(f"job {job_id} is {now} and can not be {VERBS[wanted]}: {remedy}")


def _append(connection: Connection, row: Any, *drafts: EventDraft) -> None:
    connection.execute(events.append(row.id, row.base, row.attempt, list(drafts)))
