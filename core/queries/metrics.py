"""Statements on metric series and points."""

import math
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Delete, Insert, Select, Update, bindparam, delete, func, insert, select, update

from core.tables import metric_points, metric_series

FINITE, NAN, POSITIVE_INFINITY, NEGATIVE_INFINITY = range(4)


def flag(value: float) -> int:
    """How a value is told when it is no number: see `metric_points.nonfinite`."""
    if math.isfinite(value):
        return FINITE
    if math.isnan(value):
        return NAN
    return POSITIVE_INFINITY if value > 0 else NEGATIVE_INFINITY


def value_of(value: float | None, nonfinite: int) -> float:
    """The inverse of `flag`: the recorded float."""
    return {NAN: math.nan, POSITIVE_INFINITY: math.inf, NEGATIVE_INFINITY: -math.inf}.get(nonfinite, value or 0.0)


def all_series(job_id: str) -> Select[Any]:
    return select(metric_series).where(metric_series.c.job_id == job_id).order_by(metric_series.c.name)


def create_series(job_id: str, name: str) -> Insert:
    return insert(metric_series).values(job_id=job_id, name=name).returning(metric_series.c.id)


def point_rows(series_id: int, steps: Iterable[int], values: Iterable[float]) -> list[dict[str, Any]]:
    rows = []
    for step, value in zip(steps, values, strict=True):
        nonfinite = flag(value)
        rows.append(
            {"series_id": series_id, "step": step, "value": None if nonfinite else value, "nonfinite": nonfinite}
        )
    return rows


def update_latest() -> Update:
    """Executed with one dict per series: `series_id, latest_step, latest_value, latest_nonfinite`."""
    return (
        update(metric_series)
        .where(metric_series.c.id == bindparam("series_id"))
        .values(
            last_step=bindparam("latest_step"),
            last_value=bindparam("latest_value"),
            last_nonfinite=bindparam("latest_nonfinite"),
        )
    )


def points(series_id: int, since_step: int = 0, until_step: int | None = None) -> Select[Any]:
    """Points with since_step <= step (<= until_step), in order."""
    statement = select(metric_points).where(metric_points.c.series_id == series_id, metric_points.c.step >= since_step)
    if until_step is not None:
        statement = statement.where(metric_points.c.step <= until_step)
    return statement.order_by(metric_points.c.step)


def newest_point(series_id: int) -> Select[Any]:
    return (
        select(metric_points)
        .where(metric_points.c.series_id == series_id)
        .order_by(metric_points.c.step.desc())
        .limit(1)
    )


def delete_points_after(series_ids: list[int], step: int) -> Delete:
    """For a rewind: what lies behind `step` is computed again."""
    return delete(metric_points).where(metric_points.c.series_id.in_(series_ids), metric_points.c.step > step)


def summary(series_id: int, since_step: int) -> Select[Any]:
    """How many points lie at or behind `since_step`."""
    return select(func.count()).where(metric_points.c.series_id == series_id, metric_points.c.step >= since_step)


def columns(series_id: int, since_step: int) -> Select[Any]:
    """(step, value, nonfinite) in order; value is null where it is no number."""
    return (
        select(metric_points.c.step, metric_points.c.value, metric_points.c.nonfinite)
        .where(metric_points.c.series_id == series_id, metric_points.c.step >= since_step)
        .order_by(metric_points.c.step)
    )


def points_between(series_ids: list[int], first_step: int, last_step: int) -> Select[Any]:
    """Points of several series with first_step <= step <= last_step, both included, in no order."""
    return select(metric_points).where(
        metric_points.c.series_id.in_(series_ids), metric_points.c.step.between(first_step, last_step)
    )


def next_step(series_ids: list[int], step: int) -> Select[Any]:
    """The first recorded step at or behind `step` of any of these series, or null."""
    return select(func.min(metric_points.c.step)).where(
        metric_points.c.series_id.in_(series_ids), metric_points.c.step >= step
    )
