"""Statements on checkpoints. A row names a file that is already durable."""

from typing import Any

from sqlalchemy import Delete, Insert, Select, Update, delete, insert, select, update

from core.clock import now_us
from core.tables import checkpoints


def of_job(job_id: str) -> Select[Any]:
    """Newest step first."""
    return select(checkpoints).where(checkpoints.c.job_id == job_id).order_by(checkpoints.c.step.desc())


def create(**columns: Any) -> Insert:
    return insert(checkpoints).values(created_at=now_us(), **columns)


def remove(ids: list[str]) -> Delete:
    return delete(checkpoints).where(checkpoints.c.id.in_(ids))


def forget_best(job_id: str) -> Update:
    return update(checkpoints).where(checkpoints.c.job_id == job_id, checkpoints.c.best.is_(True)).values(best=False)
