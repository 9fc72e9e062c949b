"""Where the learning rate varies: how high it may go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.reports.members import Member, final_value, reached
from api.reports.statistics import estimate

SHARE_OF_THE_WAY = 0.5
RULE_ACCURACY = "no seed diverged, and each ended at least half of the way from chance to the best mean"
RULE_OTHERWISE = "no seed diverged, and each ended better than its first evaluation"


@dataclass(frozen=True)
class Rate:
    learning_rate: float
    variant: str
    stable: bool | None
    """Null while members are missing and none of the others has shown it to be unstable."""


@dataclass(frozen=True)
class RateGroup:
    """Variants that differ in nothing but their learning rate."""

    group: str
    rates: list[Rate]
    highest_stable: float | None
    """The largest rate that was stable; null when none is known to be."""
    highest_tried: float
    rule: str


def stable_rates(plan: Mapping[str, Any], by_variant: Mapping[str, Sequence[Member]], higher: bool) -> list[RateGroup]:
    """One entry for each set of variants that differ in their rate alone; of two rates at least."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for variant in plan["variants"]:
        groups.setdefault(variant["same_but_for_the_rate"], []).append(variant)
    bounds = _bounds(plan, by_variant) if higher else {}
    found = []
    for variants in groups.values():
        if len(variants) < 2:
            continue
        ordered = sorted(variants, key=lambda variant: float(variant["learning_rate"]))
        rates = [
            Rate(at["learning_rate"], at["name"], _stable(plan, by_variant[at["name"]], bounds.get(at["name"]), higher))
            for at in ordered
        ]
        stable = [rate.learning_rate for rate in rates if rate.stable]
        found.append(
            RateGroup(
                group=variants[0]["group"] or "all",
                rates=rates,
                highest_stable=max(stable, default=None),
                highest_tried=rates[-1].learning_rate,
                rule=RULE_ACCURACY if bounds else RULE_OTHERWISE,
            )
        )
    return found


def _bounds(plan: Mapping[str, Any], by_variant: Mapping[str, Sequence[Member]]) -> dict[str, float]:
    """By variant, what its members must have reached: half of the way from chance to the best mean."""
    if any(variant["chance"] is None for variant in plan["variants"]):
        return {}
    finals = [
        [value for member in found if (value := final_value(member)) is not None] for found in by_variant.values()
    ]
    means = [mean for values in finals if (mean := estimate(values).mean) is not None]
    best = max(means, default=1.0)
    return {
        variant["name"]: variant["chance"] + SHARE_OF_THE_WAY * (best - variant["chance"])
        for variant in plan["variants"]
    }


def _stable(plan: Mapping[str, Any], members: Sequence[Member], bound: float | None, higher: bool) -> bool | None:
    verdicts = [_held(member, bound, higher) for member in members]
    if False in verdicts:
        return False
    return True if verdicts.count(True) == len(plan["seeds"]) else None


def _held(member: Member, bound: float | None, higher: bool) -> bool | None:
    if member.outcome == "diverged":
        return False
    if member.outcome != "succeeded":
        return None
    final = final_value(member)
    if final is None:
        return False
    if bound is not None:
        return reached(final, bound, True)
    first = member.evaluations[0][1]
    return len(member.evaluations) < 2 or (final != first and reached(final, first, higher))
