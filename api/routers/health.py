"""Is it alive, is it ready, and what does it count."""

from ipaddress import ip_address
from typing import Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from api.auth import Bearer, authenticate
from api.resources import Held, Resources
from core.errors import EvenkeelError
from core.queries import health, jobs
from core.states import TRANSITIONS
from core.tables import SCHEMA_HEAD

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    status: Literal["ok", "unavailable"]
    checks: dict[str, str]
    """`ok`, or what is wrong."""


@router.get("/healthz")
async def healthz() -> Alive:
    return Alive()


@router.get("/readyz", responses={503: {"model": Ready}})
def readyz(resources: Held, response: Response) -> Ready:
    """Whether requests can be answered: database, its migration, artifact store."""
    checks = {
        "database": _check(lambda: _scalar(resources, health.alive())),
        "migration": _migration(resources),
        "artifacts": _check(lambda: resources.artifacts.names("ready")),
    }
    if set(checks.values()) == {"ok"}:
        return Ready(status="ok", checks=checks)
    response.status_code = 503
    return Ready(status="unavailable", checks=checks)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, resources: Held, credentials: Bearer) -> Response:
    """For Prometheus; callers from other machines need a key."""
    if not _on_this_machine(request):
        await authenticate(credentials, resources)
    await run_sync(_count_jobs, resources)
    return Response(generate_latest(resources.meters.registry), media_type=CONTENT_TYPE_LATEST)


def _on_this_machine(request: Request) -> bool:
    try:
        return request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _count_jobs(resources: Resources) -> None:
    with resources.database.read() as connection:
        counts = {state: count for state, count in connection.execute(jobs.counts_by_state())}  # noqa: C416
    for state in TRANSITIONS:
        resources.meters.jobs.labels(state).set(counts.get(state, 0))


def _migration(resources: Resources) -> str:
    found: list[Any] = []
    finding = _check(lambda: found.append(_scalar(resources, health.migration())))
    if finding == "ok" and found == [SCHEMA_HEAD]:
        return "ok"
    have = found[0] if found and found[0] else "none"
    return f"the database has migration {have}, and this version needs {SCHEMA_HEAD}: run `evenkeel migrate`"


def _check(look: Any) -> str:
    try:
        look()
    except EvenkeelError as error:
        return error.message
    except SQLAlchemyError as error:
        return type(error).__name__
    return "ok"


def _scalar(resources: Resources, statement: Any) -> Any:
    with resources.database.read() as connection:
        return connection.execute(statement).scalar_one_or_none()
