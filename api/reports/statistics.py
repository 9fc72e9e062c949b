"""Means over seeds with Student's intervals. Sums are exact (`math.fsum`), so that no order of rows changes a digit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds. `low` and `high`: its 95 % interval, null for fewer than two seeds."""

    n: int
    mean: float | None
    low: float | None
    high: float | None

    @property
    def covers_zero(self) -> bool | None:
        return None if self.low is None or self.high is None else self.low <= 0.0 <= self.high


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval mean ± t · s / √n, with s² = Σ (x − mean)² / (n − 1) and n − 1 degrees of freedom."""
    n = len(values)
    if n == 0:
        return Estimate(0, None, None, None)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(1, mean, None, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = student_quantile(n - 1) * math.sqrt(variance / n)
    return Estimate(n, mean, mean - half, mean + half)


def ratio_estimate(ratios: Sequence[float]) -> Estimate:
    """Geometric mean of positive ratios, and the interval of the mean of their logarithms."""
    logs = estimate([math.log(ratio) for ratio in ratios])

    def back(value: float | None) -> float | None:
        return None if value is None else math.exp(value)

    return Estimate(logs.n, back(logs.mean), back(logs.low), back(logs.high))


@cache
def student_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """t with P(|T| ≤ t) = `confidence` for T of Student's distribution with `freedom` degrees of freedom.

    For whole degrees P is a finite sum in θ = atan(t / √ν) (Abramowitz & Stegun 26.7.3 and 26.7.4), which is
    halved until two neighbouring floats are left.
    """
    low, high = 0.0, math.pi / 2
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return math.sqrt(freedom) * math.tan(middle)
        if _probability_within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle


def _probability_within(theta: float, freedom: int) -> float:
    """P(|T| ≤ √ν tan θ)."""
    cosine, sine = math.cos(theta), math.sin(theta)
    terms = []
    term = cosine if freedom % 2 else 1.0
    for k in range(3 if freedom % 2 else 2, freedom + 1, 2):
        terms.append(term)
        term *= cosine * cosine * (k - 1) / k
    total = math.fsum(terms)
    return 2.0 / math.pi * (theta + sine * total) if freedom % 2 else sine * total
