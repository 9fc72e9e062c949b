"""Observed series over steps: what the layers of each variant made of the same rows while they trained."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from api.downsampling import kept
from api.reports.members import Member, Point
from api.reports.statistics import Estimate, estimate, ratio_estimate

PREFIX = "observe/"
PERCENTILE = re.compile(r"^observe/(?P<layer>.+)/p(?P<percentile>\d+(?:\.\d+)?)$")
MEDIAN = 50.0
TRACE_POINTS = 240
"""Of each line, its first, last, lowest and highest points among them; means, paths and ranges are of all."""


@dataclass(frozen=True)
class Trace:
    """One seed's series, of numbers only, thinned out where there are many."""

    seed: int
    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Observed:
    """One series of one variant. Estimates are over the seeds that ended well."""

    variant: str
    series: str
    mean: Estimate
    """Over its observations."""
    path: Estimate
    """How far it moved: the sum of |change| from each observation to the next, the first one included."""
    range: Estimate
    """Its highest value minus its lowest."""
    path_ratio: Estimate | None
    """The path over that of the baseline, seed by seed: 0.1 moved a tenth as far. Null for the baseline."""
    traces: list[Trace]
    """In the order of the seeds, running ones as far as they are, diverged ones left out."""


def names_of(plan: Mapping[str, Any]) -> list[str]:
    """The observed series that the comparison asks for in `also`."""
    return [name for name in plan.get("also", ()) if name.startswith(PREFIX)]


def percentile_of(series: str) -> tuple[str, float] | None:
    """(layer, percentile), for instance `("hidden3.activation", 50.0)`; None of other series."""
    found = PERCENTILE.match(series)
    return None if found is None else (found["layer"], float(found["percentile"]))


def observed_of(
    plan: Mapping[str, Any], members: Mapping[str, Sequence[Member]], ended: Mapping[str, Sequence[int]]
) -> list[Observed]:
    """`members` by variant, without those that diverged; `ended`: the seeds that ended well."""
    found = []
    for series in names_of(plan):
        base = _paths(members[plan["baseline"]], ended[plan["baseline"]], series)
        for variant in plan["variants"]:
            name = variant["name"]
            read = {item.seed: _finite(item.observed.get(series, ())) for item in members[name]}
            traces = [_trace(seed, points) for seed, points in read.items() if points]
            whole = [[value for _, value in read[seed]] for seed in ended[name] if read.get(seed)]
            paths = _paths(members[name], ended[name], series)
            ratios = [path / base[seed] for seed, path in paths.items() if base.get(seed, 0.0) > 0.0 and path > 0.0]
            found.append(
                Observed(
                    variant=name,
                    series=series,
                    mean=estimate([math.fsum(values) / len(values) for values in whole]),
                    path=estimate(list(paths.values())),
                    range=estimate([max(values) - min(values) for values in whole]),
                    path_ratio=None if name == plan["baseline"] else ratio_estimate(ratios),
                    traces=traces,
                )
            )
    return found


def path_length(values: Sequence[float]) -> float:
    return math.fsum(abs(after - before) for before, after in pairwise(values))


def _paths(members: Sequence[Member], ended: Sequence[int], series: str) -> dict[int, float]:
    read = {item.seed: _finite(item.observed.get(series, ())) for item in members if item.seed in ended}
    return {seed: path_length([value for _, value in points]) for seed, points in read.items() if points}


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(step, value) for step, value in points if math.isfinite(value)]


def _trace(seed: int, points: Sequence[Point]) -> Trace:
    chosen = kept(np.array([value for _, value in points]), TRACE_POINTS).tolist()
    return Trace(seed, [points[place][0] for place in chosen], [points[place][1] for place in chosen])
