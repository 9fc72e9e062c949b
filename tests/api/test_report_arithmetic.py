"""All figures of any comparison against an independent computation, in numpy's and scipy's float64.

Accuracies are drawn from a few values, so that ties are frequent; members diverge, fail, still run, or are not there.
"""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from api.reports.figures import figures_of, timing_of
from api.reports.members import Member
from api.reports.statistics import Estimate
from tests.api.reported import STEPS, member, plan

VARIANTS = ("one", "two", "base")
OUTCOMES = ("succeeded",) * 5 + ("diverged", "failed", "running")
SCORES = (0.1, 0.2, 0.3, 0.4, 0.7, math.nan)
METRICS = {"test/accuracy": 1.0, "test/rmse": -1.0}
"""With the sign that makes higher better."""
cheap = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[dict[str, Any], list[Member]]:
    """A plan, and some of its members in any order."""
    seeds = draw(st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True))
    target = draw(st.sampled_from(("baseline_best", 0.3, None)))
    drawn = []
    for variant in VARIANTS:
        for seed in draw(st.lists(st.sampled_from(seeds), unique=True)):
            values = draw(st.lists(st.sampled_from(SCORES), max_size=len(STEPS)))
            steps = sorted({*draw(st.sets(st.integers(1, STEPS[-1] - 1), max_size=4)), STEPS[-1]})
            rates = tuple((step, draw(st.sampled_from((300.0, 600.0, 1100.0)))) for step in steps)
            drawn.append(member(variant, seed, *values, outcome=draw(st.sampled_from(OUTCOMES)), rates=rates))
    made = plan(*VARIANTS, seeds=seeds, target=target, metric=draw(st.sampled_from(sorted(METRICS))))
    return made, draw(st.permutations(drawn))


class Expected:
    """The same figures, read off the points once more and otherwise: whole arrays, and the sign of the metric."""

    def __init__(self, made: dict[str, Any], members: list[Member]) -> None:
        self.sign = METRICS[made["metric"]]
        self.seeds: list[int] = made["seeds"]
        self.by_pair = {(item.variant, item.seed): item for item in members}
        self.good = {
            pair: self.sign * np.array([value for _, value in item.evaluations])
            for pair, item in self.by_pair.items()
            if item.outcome == "succeeded" and item.evaluations and math.isfinite(item.evaluations[-1][1])
        }
        best = {pair: np.nanmax(values) for pair, values in self.good.items()}
        self.final = {pair: self.sign * values[-1] for pair, values in self.good.items()}
        self.best = {pair: self.sign * value for pair, value in best.items()}
        targets = {seed: best.get(("base", seed)) for seed in self.seeds}
        if made["target"] != "baseline_best":
            targets = dict.fromkeys(self.seeds, made["target"] and self.sign * made["target"])
        self.steps = {
            (variant, seed): next((STEPS[at] for at in np.flatnonzero(values >= targets[seed])), None)
            for (variant, seed), values in self.good.items()
            if targets[seed] is not None
        }

    def of(self, values: dict[tuple[str, int], Any], variant: str) -> dict[int, Any]:
        return {seed: values[variant, seed] for seed in self.seeds if values.get((variant, seed)) is not None}

    def paired(self, values: dict[tuple[str, int], Any], variant: str) -> list[tuple[Any, Any]]:
        """(of the variant, of the baseline), where both have one."""
        here, base = self.of(values, variant), self.of(values, "base")
        return [(here[seed], base[seed]) for seed in sorted(here.keys() & base.keys())]

    def diverged(self, pair: tuple[str, int]) -> bool:
        outcome = self.by_pair[pair].outcome
        return outcome == "diverged" or (outcome == "succeeded" and pair not in self.good)

    def seconds(self, pair: tuple[str, int], upto: int) -> float:
        """Each step lasts as long as the next recorded rate says."""
        item = self.by_pair[pair]
        rates = [next(rate for at, rate in item.rates if at >= step) for step in range(1, upto + 1)]
        return float(np.sum(item.batch_size / np.array(rates)))


def assert_mean(found: Estimate, values: Any) -> None:
    """It is the mean of these values, with Student's interval."""
    sample = np.array(list(values), dtype=np.float64)
    assert found.n == len(sample)
    expected = (None, None, None)
    if len(sample) == 1:
        expected = (pytest.approx(sample[0], rel=1e-12), None, None)
    elif len(sample):
        half = stats.t.ppf(0.975, len(sample) - 1) * sample.std(ddof=1) / math.sqrt(len(sample))
        ends = sample.mean() - half, sample.mean() + half
        expected = tuple(pytest.approx(value, rel=1e-10, abs=1e-11) for value in (sample.mean(), *ends))
    assert (found.mean, found.low, found.high) == expected


def assert_ratio(found: Estimate, ratios: list[float]) -> None:
    """It is the geometric mean of these ratios, with the interval of the mean of their logarithms."""
    logs = [None if value is None else math.log(value) for value in (found.mean, found.low, found.high)]
    assert_mean(Estimate(found.n, *logs), np.log(ratios))


@cheap
@given(comparisons())
def test_means_intervals_and_paired_differences_are_those_of_an_independent_computation(
    drawn: tuple[dict[str, Any], list[Member]],
) -> None:
    figures, expected = figures_of(*drawn), Expected(*drawn)

    for variant in figures.variants:
        assert variant.seeds == list(expected.of(expected.final, variant.name))
        for name, values in (("final", expected.final), ("best", expected.best)):
            assert_mean(getattr(variant, name), expected.of(values, variant.name).values())
            if variant.difference is not None:
                paired = [here - base for here, base in expected.paired(values, variant.name)]
                assert_mean(getattr(variant.difference, name), paired)
    assert [variant.name for variant in figures.variants if variant.difference is None] == ["base"]


@cheap
@given(comparisons())
def test_steps_and_seconds_to_the_target_are_those_of_an_independent_computation(
    drawn: tuple[dict[str, Any], list[Member]],
) -> None:
    figures, timing, expected = figures_of(*drawn), timing_of(*drawn), Expected(*drawn)

    for variant, times in zip(figures.variants, timing, strict=True):
        reached = expected.of(expected.steps, variant.name)
        seconds = {
            (name, seed): expected.seconds((name, seed), step) for (name, seed), step in expected.steps.items() if step
        }
        targeted = {str(seed): step for (name, seed), step in expected.steps.items() if name == variant.name}
        assert variant.steps_by_seed == targeted
        assert (variant.reached, variant.targeted) == (len(reached), len(targeted))
        assert_mean(variant.steps_to_target, reached.values())
        assert_mean(times.seconds_to_target, expected.of(seconds, variant.name).values())
        if variant.difference is not None:
            assert_ratio(
                variant.difference.steps_ratio,
                [base / here for here, base in expected.paired(expected.steps, variant.name)],
            )
            assert times.seconds_ratio is not None
            assert_ratio(times.seconds_ratio, [b / h for h, b in expected.paired(seconds, variant.name)])


@cheap
@given(comparisons())
def test_members_that_diverged_or_are_missing_are_told_and_only_the_latter_are_in_the_curves(
    drawn: tuple[dict[str, Any], list[Member]],
) -> None:
    figures, expected = figures_of(*drawn), Expected(*drawn)

    everyone, diverged = set(expected.by_pair), {pair for pair in expected.by_pair if expected.diverged(pair)}
    assert {(at.variant, at.seed) for at in figures.diverged} == diverged
    assert {(at.variant, at.seed) for at in figures.missing} == everyone - diverged - set(expected.good)
    for curve in figures.curves:
        points = [
            point
            for pair in everyone - diverged
            if pair[0] == curve.variant
            for point in expected.by_pair[pair].evaluations
            if math.isfinite(point[1])
        ]
        assert [point.step for point in curve.points] == sorted({step for step, _ in points})
        for at in curve.points:
            values = [value for step, value in points if step == at.step]
            assert (at.n, at.low, at.high) == (len(values), min(values), max(values))
            assert at.mean == pytest.approx(np.mean(values))
