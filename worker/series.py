"""Metric series of one job as its supervisor knows them: what is recorded, and what is new.

A resumed trainer computes the steps behind its checkpoint again. Recorded points stay; recomputed
ones are compared with them, which finds any nondeterminism for free."""

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection

from core.db import insert_many
from core.queries import metrics
from core.queries.events import EventDraft
from core.queries.metrics import flag, point_rows, value_of
from core.tables import metric_points

INCOMPARABLE = "throughput/"
"""Series whose values depend on the clock."""


@dataclass
class Series:
    name: str
    id: int | None = None  # None: not in the database yet
    last_step: int = -1
    steps: "array[int]" = field(default_factory=lambda: array("q"))  # new, not committed
    values: "array[float]" = field(default_factory=lambda: array("d"))
    recorded: dict[int, float] = field(default_factory=dict)  # to compare with
    differs_from: int | None = None  # first step whose recomputed value is another
    attempted: int = 0  # how many of `steps` the last transaction held; more may have come since
    attempted_difference: int | None = None


class SeriesBook:
    def __init__(self) -> None:
        self._series: dict[str, Series] = {}

    def load(self, connection: Connection, job_id: str) -> None:
        for row in connection.execute(metrics.all_series(job_id)):
            last = -1 if row.last_step is None else row.last_step
            self._series[row.name] = Series(row.name, row.id, last)

    def load_recorded(self, connection: Connection, after_step: int) -> None:
        """Reads what a trainer that resumes after `after_step` will compute again."""
        for series in self._series.values():
            if series.id is None or series.name.startswith(INCOMPARABLE):
                continue
            rows = connection.execute(metrics.points(series.id, after_step + 1))
            series.recorded = {row.step: value_of(row.value, row.nonfinite) for row in rows}

    def rewind(self, connection: Connection, step: int) -> None:
        """Forgets every point behind `step`, here and in the database."""
        known = [series for series in self._series.values() if series.id is not None and series.last_step > step]
        for series in known:
            _rewind(connection, series, step)

    def add(self, name: str, steps: "array[int]", values: "array[float]") -> Series:
        """Compares what is recorded already and keeps what is new; `steps` ascend."""
        series = self._series.setdefault(name, Series(name))
        first_new = bisect_right(steps, series.last_step)
        if first_new and series.recorded:
            first_new = _first_difference(series, steps, values, first_new)
        series.steps.extend(steps[first_new:])
        series.values.extend(values[first_new:])
        if series.steps:
            series.last_step = max(series.last_step, series.steps[-1])
        return series

    def pending(self) -> Iterator[Series]:
        """Series with points that are not committed."""
        return (series for series in self._series.values() if series.steps)

    def write(self, connection: Connection, job_id: str) -> dict[str, int]:
        """Inserts what is pending; part of the caller's transaction. Answers the ids of new series,
        which hold only once that transaction has landed: see `committed`."""
        fresh: dict[str, int] = {}
        rows, latest = [], []
        for series in self.pending():
            series.attempted, series.attempted_difference = len(series.steps), series.differs_from
            identifier = series.id
            if identifier is None:
                identifier = fresh[series.name] = connection.execute(
                    metrics.create_series(job_id, series.name)
                ).scalar_one()
            elif series.differs_from is not None:
                connection.execute(metrics.delete_points_after([identifier], series.differs_from - 1))
            rows += point_rows(identifier, series.steps, series.values)
            latest.append(_latest(identifier, series.steps[-1], series.values[-1]))
        if rows:
            insert_many(connection, metric_points, rows)
            connection.execute(metrics.update_latest(), latest)
        return fresh

    def committed(self, fresh: dict[str, int]) -> None:
        """What the last transaction held is durable."""
        for series in self.pending():
            series.id = fresh.get(series.name, series.id)
            if series.differs_from == series.attempted_difference:
                series.differs_from = None
            series.steps, series.values = series.steps[series.attempted :], series.values[series.attempted :]
            series.attempted = 0

    def landed_unseen(self, connection: Connection, job_id: str) -> None:
        """As `committed`, when the answer to the commit was lost: the ids are read from the database."""
        self.committed({row.name: row.id for row in connection.execute(metrics.all_series(job_id))})


@dataclass
class FreshPoints:
    """What an event of type `metrics` is to say: the range of points that no event has named yet."""

    first: dict[str, int] = field(default_factory=dict)
    last: dict[str, tuple[int, float]] = field(default_factory=dict)
    rewound: dict[str, int] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)  # a series differs once in an attempt: all behind it is new

    def add(self, series: Series) -> None:
        if series.differs_from is not None and series.name not in self.told:
            self.told.add(series.name)
            self.rewound[series.name] = series.differs_from
            self.last[series.name] = (series.differs_from - 1, math.nan)
        known = self.last.get(series.name)
        new = bisect_right(series.steps, known[0]) if known else 0
        if new < len(series.steps):
            self.first.setdefault(series.name, series.steps[new])
            self.last[series.name] = (series.steps[-1], series.values[-1])

    def take(self) -> list[EventDraft]:
        """The events, once; `last` stays, so that no point is named twice."""
        drafts = [_difference_draft(name, step) for name, step in self.rewound.items()]
        if self.first:
            last_step = max(self.last[name][0] for name in self.first)
            data = {
                "first_step": min(self.first.values()),
                "last_step": last_step,
                "series": sorted(self.first),
                "latest": {name: _finite_or_none(self.last[name][1]) for name in self.first},
            }
            drafts.append(EventDraft("metrics", f"metrics to step {last_step}", data))
        self.first, self.rewound = {}, {}
        return drafts


def _difference_draft(name: str, step: int) -> EventDraft:
    text = f"{name} differs from its record at step {step}; recorded anew from there"
    return EventDraft("rewind", text, {"step": step - 1, "series": [name]}, "warning")


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _first_difference(series: Series, steps: "array[int]", values: "array[float]", first_new: int) -> int:
    """Index from which points are to be written: the first that differs from its record, else `first_new`."""
    for index in range(first_new):
        recorded = series.recorded.get(steps[index])
        if recorded is not None and not _same(recorded, values[index]):
            series.differs_from = steps[index]
            series.last_step = steps[index] - 1
            series.recorded = {}
            return index
    return first_new


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _rewind(connection: Connection, series: Series, step: int) -> None:
    if series.id is None:
        return
    connection.execute(metrics.delete_points_after([series.id], step))
    newest = connection.execute(metrics.newest_point(series.id)).one_or_none()
    series.last_step = -1 if newest is None else newest.step
    last = None if newest is None else value_of(newest.value, newest.nonfinite)
    connection.execute(metrics.update_latest(), [_latest(series.id, None if newest is None else newest.step, last)])


def _latest(series_id: int, step: int | None, value: float | None) -> dict[str, object]:
    nonfinite = 0 if value is None else flag(value)
    shown = None if nonfinite else value
    return {"series_id": series_id, "latest_step": step, "latest_value": shown, "latest_nonfinite": nonfinite}
