"""The figures of a comparison, from plain data to plain data: no database, no HTTP, no clock.

Seeds are pairs: a variant and the baseline of the same seed began with the same weights and saw the same data, so
their difference is taken seed by seed, and its interval is that of these differences.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from api.reports.ensembles import ensembles_of
from api.reports.members import (
    Member,
    best_point,
    final_value,
    first_step_reaching,
    generalization_gap,
    higher_is_better,
    last_of,
    seconds_to,
    served_value,
    trained,
)
from api.reports.observed import observed_of
from api.reports.rates import stable_rates
from api.reports.shapes import (
    Absent,
    Beside,
    Curve,
    CurvePoint,
    Difference,
    Figures,
    Target,
    VariantFigures,
    VariantTiming,
)
from api.reports.statistics import estimate, ratio_estimate

Values = Mapping[int, float]
"""By seed."""


def figures_of(plan: Mapping[str, Any], members: Sequence[Member], confidence: float = 0.95) -> Figures:
    """`plan`: as `api.comparisons.Admitted.plan` wrote it."""
    metric, higher = plan["metric"], higher_is_better(plan["metric"])
    by_variant = _by_variant(plan, members)
    target = _target(plan, by_variant[plan["baseline"]], higher)
    baseline = _Read(by_variant[plan["baseline"]], metric, higher, target)
    variants = []
    for variant in plan["variants"]:
        here = _Read(by_variant[variant["name"]], metric, higher, target)
        versus = None if variant["name"] == plan["baseline"] else _difference(here, baseline)
        also = {name: _beside(name, here, baseline, versus is None) for name in plan.get("also", ())}
        variants.append(_variant(variant, here, versus, also))
    going = {name: [item for item in found if not is_diverged(item)] for name, found in by_variant.items()}
    ended = [member for member in members if member.outcome == "succeeded"]
    diverged = [member for member in members if is_diverged(member)]
    return Figures(
        metric=metric,
        higher_is_better=higher,
        baseline=plan["baseline"],
        confidence=confidence,
        target=target,
        variants=variants,
        rates=stable_rates(plan, by_variant, higher),
        diverged=_absent(plan, diverged),
        missing=_absent(plan, [member for member in members if member not in ended and member not in diverged]),
        curves=[Curve(name, curve_of(found)) for name, found in by_variant.items()],
        ensembles=ensembles_of(plan, going),
        observed=observed_of(plan, going, {variant.name: variant.seeds for variant in variants}),
    )


def timing_of(plan: Mapping[str, Any], members: Sequence[Member]) -> list[VariantTiming]:
    metric, higher = plan["metric"], higher_is_better(plan["metric"])
    by_variant = _by_variant(plan, members)
    target = _target(plan, by_variant[plan["baseline"]], higher)
    seconds = {name: _Read(found, metric, higher, target).seconds_to_target() for name, found in by_variant.items()}
    whole = {name: [pair for member in found if (pair := trained(member))] for name, found in by_variant.items()}
    base = seconds[plan["baseline"]]
    return [
        VariantTiming(
            name,
            estimate(list(found.values())),
            estimate([took for _, took in whole[name]]),
            estimate([steps / took for steps, took in whole[name]]),
            None if name == plan["baseline"] else ratio_estimate(_ratios(base, found)),
        )
        for name, found in seconds.items()
    ]


def counts(member: Member) -> bool:
    """Do the means take it in? It ended well, and its last evaluation is a number."""
    return final_value(member) is not None


def is_diverged(member: Member) -> bool:
    return member.outcome == "diverged" or (member.outcome == "succeeded" and not counts(member))


def curve_of(members: Sequence[Member]) -> list[CurvePoint]:
    """Over members that did not diverge, the running ones as far as they are."""
    values: dict[int, list[float]] = {}
    for member in members:
        for step, value in () if is_diverged(member) else member.evaluations:
            if math.isfinite(value):
                values.setdefault(step, []).append(value)
    return [
        CurvePoint(step, len(found), math.fsum(found) / len(found), min(found), max(found))
        for step, found in sorted(values.items())
    ]


class _Read:
    """The figures of one variant's members by seed."""

    def __init__(self, members: Sequence[Member], metric: str, higher: bool, target: Target) -> None:
        self._members = {member.seed: member for member in members if counts(member)}
        self._higher, self._target = higher, target
        self.final = self._values(final_value)
        self.best = self._values(lambda member: (best_point(member, higher) or (0, None))[1])
        self.served = self._values(lambda member: served_value(member, metric))
        self.gap = self._values(lambda member: generalization_gap(member, higher))
        self.steps = {seed: self._steps(seed) for seed in self._members if self._target_of(seed) is not None}

    @property
    def seeds(self) -> list[int]:
        return list(self._members)

    def reached(self) -> dict[int, float]:
        return {seed: float(step) for seed, step in self.steps.items() if step is not None}

    def last(self, series: str) -> dict[int, float]:
        return self._values(lambda member: last_of(member, series))

    def seconds_to_target(self) -> dict[int, float]:
        found = {seed: seconds_to(self._members[seed], step) for seed, step in self.steps.items() if step is not None}
        return {seed: seconds for seed, seconds in found.items() if seconds is not None}

    def _values(self, read: Callable[[Member], float | None]) -> dict[int, float]:
        found = {seed: read(member) for seed, member in self._members.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def _target_of(self, seed: int) -> float | None:
        if self._target.kind == "baseline_best":
            return self._target.by_seed.get(str(seed))
        return self._target.value

    def _steps(self, seed: int) -> int | None:
        target = self._target_of(seed)
        return None if target is None else first_step_reaching(self._members[seed], target, self._higher)


def _beside(series: str, here: _Read, baseline: _Read, is_baseline: bool) -> Beside:
    values = here.last(series)
    difference = None if is_baseline else estimate(_paired(values, baseline.last(series)))
    return Beside(estimate(list(values.values())), difference)


def _variant(
    variant: Mapping[str, Any], here: _Read, versus: Difference | None, also: dict[str, Beside]
) -> VariantFigures:
    reached = here.reached()
    return VariantFigures(
        name=variant["name"],
        changes=variant["changes"],
        seeds=here.seeds,
        best=estimate(list(here.best.values())),
        final=estimate(list(here.final.values())),
        served=estimate(list(here.served.values())),
        gap=estimate(list(here.gap.values())),
        reached=len(reached),
        targeted=len(here.steps),
        steps_to_target=estimate(list(reached.values())),
        steps_by_seed={str(seed): step for seed, step in here.steps.items()},
        also=also,
        difference=versus,
    )


def _difference(here: _Read, baseline: _Read) -> Difference:
    return Difference(
        final=estimate(_paired(here.final, baseline.final)),
        best=estimate(_paired(here.best, baseline.best)),
        served=estimate(_paired(here.served, baseline.served)),
        steps_ratio=ratio_estimate(_ratios(baseline.reached(), here.reached())),
    )


def _paired(here: Values, baseline: Values) -> list[float]:
    return [value - baseline[seed] for seed, value in here.items() if seed in baseline]


def _ratios(baseline: Values, here: Values) -> list[float]:
    return [baseline[seed] / value for seed, value in here.items() if seed in baseline]


def _target(plan: Mapping[str, Any], baseline: Sequence[Member], higher: bool) -> Target:
    if plan["target"] is None:
        return Target("none", None, {})
    if plan["target"] != "baseline_best":
        return Target("value", float(plan["target"]), {})
    found = {
        str(member.seed): point[1] for member in baseline if counts(member) and (point := best_point(member, higher))
    }
    return Target("baseline_best", estimate(list(found.values())).mean, found)


def _by_variant(plan: Mapping[str, Any], members: Sequence[Member]) -> dict[str, list[Member]]:
    """In the order of the plan, and in it of the seeds: whatever order the rows came in."""
    order = {seed: place for place, seed in enumerate(plan["seeds"])}
    found: dict[str, list[Member]] = {variant["name"]: [] for variant in plan["variants"]}
    for member in sorted(members, key=lambda member: order[member.seed]):
        found[member.variant].append(member)
    return found


def _absent(plan: Mapping[str, Any], members: Sequence[Member]) -> list[Absent]:
    grouped = _by_variant(plan, members)
    return [
        Absent(
            member.variant,
            member.seed,
            "diverged" if is_diverged(member) else member.outcome,
            member.step,
            member.error,
        )
        for found in grouped.values()
        for member in found
    ]
