"""Statements on the reports of a job's normalization layers."""

from typing import Any

from sqlalchemy import Delete, Insert, Select, delete, insert, select

from core.clock import now_us
from core.tables import layer_reports


def create(**columns: Any) -> Insert:
    return insert(layer_reports).values(created_at=now_us(), **columns)


def remove(job_id: str, step: int) -> Delete:
    return delete(layer_reports).where(layer_reports.c.job_id == job_id, layer_reports.c.step == step)


def remove_after(job_id: str, step: int) -> Delete:
    """For a rewind: what lies behind `step` is reported again."""
    return delete(layer_reports).where(layer_reports.c.job_id == job_id, layer_reports.c.step > step)


def keep_newest(job_id: str, count: int) -> Delete:
    """Removes all but the newest `count` reports."""
    oldest_kept = (
        select(layer_reports.c.step)
        .where(layer_reports.c.job_id == job_id)
        .order_by(layer_reports.c.step.desc())
        .offset(count - 1)
        .limit(1)
        .scalar_subquery()
    )
    return delete(layer_reports).where(layer_reports.c.job_id == job_id, layer_reports.c.step < oldest_kept)


def newest(job_id: str, until_step: int | None = None) -> Select[Any]:
    """The newest report, or the newest of those at or before `until_step`."""
    statement = select(layer_reports).where(layer_reports.c.job_id == job_id)
    if until_step is not None:
        statement = statement.where(layer_reports.c.step <= until_step)
    return statement.order_by(layer_reports.c.step.desc()).limit(1)


def steps(job_id: str) -> Select[Any]:
    """Steps that have a report, ascending."""
    return select(layer_reports.c.step).where(layer_reports.c.job_id == job_id).order_by(layer_reports.c.step)
