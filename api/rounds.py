"""What a search does next, from its plan and what its members came to: plain data in, plain data out."""

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from api.reports.members import higher_is_better
from core.queries.comparisons import DIVERGED
from core.spec.search import HalvingSearch, RandomSearch, SearchSpec, TPESearch, drawn

TPE = "api.tpe"
"""By name: its library takes a third of a second to load, and few services search."""


@dataclass(frozen=True)
class Outcome:
    """How a member ended: `value` is its last metric."""

    variant: str
    seed: int
    state: str
    error: Mapping[str, Any] | None
    value: float | None


@dataclass(frozen=True)
class Round:
    """`trials`: values to try; `survivors`: names of variants that go on to `steps`. `last`: none comes after it."""

    last: bool
    trials: tuple[dict[str, Any], ...] = ()
    survivors: tuple[str, ...] = ()
    steps: int = 0


def first_trials(search: SearchSpec) -> tuple[dict[str, Any], ...]:
    """The values of the first round."""
    count = min(search.first_trials, search.trials) if isinstance(search, TPESearch) else search.trials
    return tuple(drawn(search, number) for number in range(1, count + 1))


def is_over(search: SearchSpec, trials: int) -> bool:
    """Does no round come after the first?"""
    return isinstance(search, RandomSearch) or (isinstance(search, TPESearch) and trials >= search.trials)


def next_round(search: SearchSpec, plan: Mapping[str, Any], outcomes: Sequence[Outcome], steps: int) -> Round:
    """The round after one whose members have all ended. `steps`: of the whole training."""
    trials = [variant for variant in plan["variants"] if variant.get("trial")]
    higher = higher_is_better(plan["metric"])
    results = {
        variant["name"]: _result([item for item in outcomes if item.variant == variant["name"]], higher)
        for variant in trials
    }
    if isinstance(search, HalvingSearch):
        return _next_rung(search, plan["search"]["rung"] + 1, trials, results, steps, higher)
    refused = plan["search"]["refused"]
    tried = len(trials) + len(refused)
    if not isinstance(search, TPESearch) or tried >= search.trials:
        return Round(last=True)
    told = [(variant["changes"], results[variant["name"]]) for variant in trials]
    told += [(item["changes"], None) for item in refused]
    count = min(search.at_once, search.trials - tried)
    asked = importlib.import_module(TPE).ask(search, told, count, higher)
    return Round(tried + count >= search.trials, tuple(asked))


def _next_rung(
    search: HalvingSearch,
    rung: int,
    trials: Sequence[Mapping[str, Any]],
    results: Mapping[str, float | None],
    steps: int,
    higher: bool,
) -> Round:
    """Of equal results the earlier trial goes on; one that diverged, or has none, never does."""
    running = [variant for variant in trials if variant["rung"] == rung - 1]
    fit = [(variant["trial"], variant["name"], results[variant["name"]]) for variant in running]
    ranked = sorted(
        (
            (-value if higher else value, trial, name)
            for trial, name, value in fit
            if value is not None and math.isfinite(value)
        )
    )
    chosen = tuple(name for _, _, name in ranked[: search.survivors(len(running))])
    return Round(not chosen or rung == search.rungs - 1, (), chosen, search.steps(steps)[rung])


def _result(outcomes: Sequence[Outcome], higher: bool) -> float | None:
    """The mean over seeds; the worst there is when one diverged, None when one failed for a reason of its own."""
    worst = -math.inf if higher else math.inf
    if any(item.state == "failed" and (item.error or {}).get("code") in DIVERGED for item in outcomes):
        return worst
    values = [item.value for item in outcomes if item.state == "succeeded"]
    if not values or len(values) < len(outcomes) or any(value is None for value in values):
        return None
    mean = fmean(value for value in values if value is not None)
    return mean if math.isfinite(mean) else worst
