"""Metric series out of the database: downsampled for a plot, or whole as CSV."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sqlalchemy import Connection

from api.downsampling import kept
from core.db import Database
from core.queries import metrics
from core.queries.metrics import value_of

NONFINITE_NAMES = {metrics.NAN: "nan", metrics.POSITIVE_INFINITY: "inf", metrics.NEGATIVE_INFINITY: "-inf"}
FETCHED_AT_ONCE = 10_000
CSV_STEPS = 5_000
"""Steps that a piece of CSV covers: what bounds its memory."""


def series_ids(connection: Connection, job_id: str, names: list[str] | None) -> dict[str, int | None]:
    """Ids by name: of the series asked for, in this order, else of all. None: nothing is recorded under it yet."""
    found = {row.name: row.id for row in connection.execute(metrics.all_series(job_id))}
    return found if names is None else {name: found.get(name) for name in names}


def plotted(connection: Connection, series_id: int | None, since_step: int, max_points: int) -> dict[str, Any]:
    """A `Series` of at most `max_points`."""
    if series_id is None:
        return {"steps": [], "values": [], "total_points": 0}
    steps, values, flags = _columns(connection, series_id, since_step)
    chosen = kept(values, max_points)
    shown, marks = values[chosen].tolist(), flags[chosen].tolist()
    answer: dict[str, Any] = {
        "steps": steps[chosen].tolist(),
        "values": [None if mark else value for value, mark in zip(shown, marks, strict=True)],
        "total_points": len(steps),
    }
    if any(marks):
        marked = zip(answer["steps"], marks, strict=True)
        answer["nonfinite"] = {str(step): NONFINITE_NAMES[mark] for step, mark in marked if mark}
    return answer


def csv_lines(database: Database, series: dict[str, int | None], since_step: int) -> Iterator[str]:
    """`step,<name>,…` and a line for each recorded step. Holds no connection between two pieces."""
    yield f"step,{','.join(series)}\n"
    ids = [series_id for series_id in series.values() if series_id is not None]
    step: int | None = since_step
    while ids and step is not None:
        with database.read() as connection:
            step = connection.execute(metrics.next_step(ids, step)).scalar_one()
            if step is None:
                return
            rows = connection.execute(metrics.points_between(ids, step, step + CSV_STEPS - 1)).all()
        yield _piece(list(series.values()), rows)
        step += CSV_STEPS


def _piece(ids: list[int | None], rows: Any) -> str:
    by_step: dict[int, dict[int | None, str]] = {}
    for series_id, step, value, nonfinite in rows:
        by_step.setdefault(step, {})[series_id] = repr(value_of(value, nonfinite))
    lines = (f"{step},{','.join(by_step[step].get(series_id, '') for series_id in ids)}\n" for step in sorted(by_step))
    return "".join(lines)


def _columns(connection: Connection, series_id: int, since_step: int) -> tuple[Any, Any, Any]:
    """(steps, values with NaN and infinities in place, flags) as arrays; rows are turned into numbers in portions."""
    statement = metrics.columns(series_id, since_step)
    result = connection.execute(statement, execution_options={"yield_per": FETCHED_AT_ONCE})
    parts = [(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int8))]
    for rows in result.partitions():
        steps, values, flags = zip(*rows, strict=True)
        restored = map(value_of, values, flags)
        parts.append((np.array(steps, np.int64), np.fromiter(restored, float, len(rows)), np.array(flags, np.int8)))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]
