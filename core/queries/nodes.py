"""Statements on worker nodes: who is there, and since when nobody heard of it."""

from typing import Any

from sqlalchemy import Delete, Insert, Select, Update, delete, func, insert, select, update

from core.clock import microseconds, now_us
from core.tables import jobs, nodes

FORGOTTEN_SECONDS = 7 * 24 * 3600.0


def create(**columns: Any) -> Insert:
    return insert(nodes).values(started_at=now_us(), last_seen_at=now_us(), **columns)


def started(node_id: str, **columns: Any) -> Update:
    """A worker that begins another life on its home."""
    return update(nodes).where(nodes.c.id == node_id).values(started_at=now_us(), last_seen_at=now_us(), **columns)


def seen(node_id: str) -> Update:
    return update(nodes).where(nodes.c.id == node_id).values(last_seen_at=now_us())


def everyone() -> Select[Any]:
    """Every node with `busy`, the jobs it holds a lease on now, and `silent_us`, the time since it was last seen."""
    busy = (
        select(func.count())
        .select_from(jobs)
        .where(jobs.c.state == "running", jobs.c.lease_owner.startswith(nodes.c.id + ":"))
        .scalar_subquery()
    )
    silent = now_us() - nodes.c.last_seen_at
    return select(nodes, busy.label("busy"), silent.label("silent_us")).order_by(nodes.c.id)


def forget() -> Delete:
    """Nodes that nobody has heard of for a week."""
    return delete(nodes).where(nodes.c.last_seen_at < now_us() - microseconds(FORGOTTEN_SECONDS))
