"""Worker nodes as clients see them."""

from typing import Any, Literal

from pydantic import BaseModel

from core.clock import MICROSECONDS, rfc3339

ALIVE_SECONDS = 30


class Node(BaseModel):
    object: Literal["node"] = "node"
    id: str
    host: str
    alive: bool
    """Heard of within the last 30 seconds, by the database's clock."""
    slots: int
    busy: int
    gpus: int
    versions: dict[str, str]
    started_at: str
    last_seen_at: str


def node_of(row: Any) -> Node:
    return Node(
        id=row.id,
        host=row.host,
        alive=row.silent_us < ALIVE_SECONDS * MICROSECONDS,
        slots=row.slots,
        busy=row.busy,
        gpus=row.gpus,
        versions=row.versions,
        started_at=rfc3339(row.started_at) or "",
        last_seen_at=rfc3339(row.last_seen_at) or "",
    )
