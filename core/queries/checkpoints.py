"""Statements on checkpoints. A row names a file that is already durable."""

from typing import Any

from sqlalchemy import Delete, Insert, Select, Update, delete, insert, select, update

from core.clock import now_us
from core.tables import checkpoints, jobs


def of_job(job_id: str) -> Select[Any]:
    """Newest step first."""
    return select(checkpoints).where(checkpoints.c.job_id == job_id).order_by(checkpoints.c.step.desc())


def of_forks(job_id: str) -> Select[Any]:
    """Names of files that jobs forked from this one may still have to begin from."""
    return (
        select(checkpoints.c.name)
        .join_from(checkpoints, jobs, checkpoints.c.job_id == jobs.c.id)
        .where(jobs.c.forked_from == job_id)
    )


def at_step(job_id: str, step: int) -> Select[Any]:
    return select(checkpoints).where(checkpoints.c.job_id == job_id, checkpoints.c.step == step)


def create(**columns: Any) -> Insert:
    return insert(checkpoints).values(created_at=now_us(), **columns)


def remove(ids: list[str]) -> Delete:
    return delete(checkpoints).where(checkpoints.c.id.in_(ids))


def forget_best(job_id: str) -> Update:
    return update(checkpoints).where(checkpoints.c.job_id == job_id, checkpoints.c.best.is_(True)).values(best=False)
