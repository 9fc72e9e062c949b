"""The parts of a report: plain values, in the order in which they are told."""

from dataclasses import dataclass
from typing import Any, Literal

from api.reports.ensembles import Ensemble
from api.reports.observed import Observed
from api.reports.rates import RateGroup
from api.reports.statistics import Estimate


@dataclass(frozen=True)
class Absent:
    """A member that the figures are without, and why."""

    variant: str
    seed: int
    outcome: str
    step: int
    error: str | None


@dataclass(frozen=True)
class Difference:
    """The variant minus the baseline, over the seeds that both have."""

    final: Estimate
    best: Estimate
    served: Estimate
    steps_ratio: Estimate
    """Steps of the baseline to the target over those of the variant, where both reached it: 2 is twice as fast."""


@dataclass(frozen=True)
class Beside:
    """The last value of another series."""

    last: Estimate
    difference: Estimate | None
    """To the baseline, seed by seed; null for it."""


@dataclass(frozen=True)
class VariantFigures:
    name: str
    changes: dict[str, Any]
    seeds: list[int]
    """Of the members that ended well: those that the means are over."""
    best: Estimate
    final: Estimate
    served: Estimate
    """Under population statistics, as a published model answers; of the test split only."""
    gap: Estimate
    """How much better the training score is than the final one."""
    reached: int
    """Members that reached the target, of `targeted` that have one."""
    targeted: int
    steps_to_target: Estimate
    """Over the members that reached it."""
    steps_by_seed: dict[str, int | None]
    """Null: ended without reaching it."""
    also: dict[str, Beside]
    """By series, those that the comparison asked for."""
    difference: Difference | None
    """Null for the baseline."""


@dataclass(frozen=True)
class CurvePoint:
    step: int
    n: int
    mean: float
    low: float
    """The lowest seed."""
    high: float


@dataclass(frozen=True)
class Curve:
    variant: str
    points: list[CurvePoint]


@dataclass(frozen=True)
class Target:
    kind: Literal["baseline_best", "value", "none"]
    """`baseline_best`: seed by seed the best that the baseline reached; `value`; `none`."""
    value: float | None
    """Of `baseline_best` the mean over seeds."""
    by_seed: dict[str, float]


@dataclass(frozen=True)
class Figures:
    """All that the recorded points say, but for what depends on the clock: the same points, the same bytes."""

    metric: str
    higher_is_better: bool
    baseline: str
    confidence: float
    target: Target
    variants: list[VariantFigures]
    rates: list[RateGroup]
    """Where the learning rate varies: which rates were stable."""
    diverged: list[Absent]
    missing: list[Absent]
    """Members that have not ended, failed for a reason of their own, or were cancelled."""
    curves: list[Curve]
    ensembles: list[Ensemble]
    """Where the comparison has `ensemble`: what the seeds of each variant answer together."""
    observed: list[Observed]
    """Of each `observe/` series in `also` its course in each variant, and how far it moved."""


@dataclass(frozen=True)
class VariantTiming:
    """Seconds of training, without evaluations, checkpoints and waiting; they differ from run to run."""

    name: str
    seconds_to_target: Estimate
    training_seconds: Estimate
    steps_per_second: Estimate
    seconds_ratio: Estimate | None
    """Seconds of the baseline to the target over those of the variant, by seed."""


@dataclass(frozen=True)
class MemberOfReport:
    variant: str
    seed: int
    job_id: str
    outcome: str
    step: int


@dataclass(frozen=True)
class Report:
    object: Literal["comparison_report"]
    comparison_id: str
    name: str
    complete: bool
    """Has every member ended, well or by diverging?"""
    sentence: str
    """What the figures support, in plain words."""
    sentences: list[str]
    """Of each variant against the baseline, and of the learning rates."""
    figures: Figures
    figures_sha256: str
    """Of `figures` as canonical JSON: equal for comparisons that were run to the same bits."""
    timing: list[VariantTiming]
    members: list[MemberOfReport]
