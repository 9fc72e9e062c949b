"""What one member of a comparison shows: read off its recorded points, and nothing else."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Outcome = Literal["queued", "running", "paused", "succeeded", "diverged", "failed", "cancelled"]
Point = tuple[int, float]


@dataclass(frozen=True)
class Answers:
    """On the test split: probabilities (N, classes) with classes (N,), or values (N, 1) with values (N,)."""

    answers: NDArray[np.float32]
    targets: NDArray[Any]


@dataclass(frozen=True)
class Member:
    """A run of a variant with a seed, as plain data."""

    variant: str
    seed: int
    outcome: Outcome
    error: str | None = None
    """Code and message, of one that failed or diverged."""
    step: int = 0
    batch_size: int = 1
    evaluations: tuple[Point, ...] = ()
    """(step, metric) in the order of steps."""
    training: tuple[Point, ...] = ()
    """(step, the same score on the training batch), of the last steps; empty where training records none."""
    rates: tuple[Point, ...] = ()
    """(step, examples a second since the point before)."""
    also: dict[str, float] = field(default_factory=dict)
    """The last values of other series, by name."""
    observed: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    """Whole series of observations, by name."""
    result: dict[str, Any] = field(default_factory=dict)
    answers: Answers | None = field(default=None, compare=False)
    """Of one that ended well, where the comparison has `ensemble`."""


def higher_is_better(metric: str) -> bool:
    return metric.split("/")[-1] not in ("loss", "rmse")


def reached(value: float, target: float, higher: bool) -> bool:
    return value >= target if higher else value <= target


def best_point(member: Member, higher: bool) -> Point | None:
    """The best evaluation; of equal ones the first."""
    finite = [(step, value) for step, value in member.evaluations if math.isfinite(value)]
    return min(finite, key=lambda point: (-point[1] if higher else point[1], point[0]), default=None)


def final_value(member: Member) -> float | None:
    """The last evaluation of one that ended well; None when it is no number."""
    if member.outcome != "succeeded" or not member.evaluations:
        return None
    value = member.evaluations[-1][1]
    return value if math.isfinite(value) else None


def served_value(member: Member, metric: str) -> float | None:
    """The score under the population statistics, as the frozen network gives it; of the test split only."""
    split, score = metric.split("/")
    value = member.result.get(score) if split == "test" and member.outcome == "succeeded" else None
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def last_of(member: Member, series: str) -> float | None:
    """The last value of another series of one that ended well."""
    value = member.also.get(series) if member.outcome == "succeeded" else None
    return value if value is not None and math.isfinite(value) else None


def first_step_reaching(member: Member, target: float, higher: bool) -> int | None:
    """The first evaluation that is as good as the target."""
    return next((step for step, value in member.evaluations if reached(value, target, higher)), None)


def generalization_gap(member: Member, higher: bool) -> float | None:
    """How much better the score is in training, over the steps since the evaluation before the last.

    Positive means better in training. The training score is of batches as they were trained on: under batch
    statistics, and with dropout where there is any.
    """
    final = final_value(member)
    since = member.evaluations[-2][0] if len(member.evaluations) > 1 else 0
    recent = [value for step, value in member.training if step > since]
    if final is None or not recent or not all(map(math.isfinite, recent)):
        return None
    trained = math.fsum(recent) / len(recent)
    return trained - final if higher else final - trained


def seconds_to(member: Member, step: int) -> float | None:
    """Seconds of training up to a step, from the recorded rates: without evaluations, checkpoints and waiting,
    so that a run which was interrupted counts like one that was not. None before so many steps are recorded."""
    seconds: list[float] = []
    before = 0
    for at, rate in member.rates:
        if not (math.isfinite(rate) and rate > 0.0):
            continue
        seconds.append((min(at, step) - before) * member.batch_size / rate)
        before = at
        if at >= step:
            return math.fsum(seconds)
    return None


def trained(member: Member) -> tuple[int, float] | None:
    """(steps, seconds of training) up to the last evaluation of one that ended well."""
    if final_value(member) is None:
        return None
    steps = member.evaluations[-1][0]
    seconds = seconds_to(member, steps)
    return None if seconds is None else (steps, seconds)
