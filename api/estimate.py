"""How long a job will take: from what past jobs took, or else from a short test of this machine."""

import time
from collections.abc import Sequence
from functools import cache
from statistics import median
from typing import Any

import numpy as np

from api.schemas.jobs import Estimate
from core.spec import JobSpec

HISTORY = 50
"""Succeeded jobs that are looked at."""
CALIBRATION_SECONDS = 0.02
MATRIX = 64  # small enough that the linear algebra library uses one thread, as a trainer does by default
STEP_OVERHEAD_SECONDS = 4e-4
"""What a step costs beside its arithmetic: batch, kernel launches, optimizer, metrics."""
LEAST_SHARE = 0.1
"""At least this share of a past step was arithmetic."""


def estimate(spec: JobSpec, flops_per_step: int, history: Sequence[Any]) -> Estimate:
    """Seconds of training. `history`: rows of `queries.jobs.recent_step_rates`; the same family counts first."""
    rates = _flop_rates(history, spec.network.family) or _flop_rates(history, None)
    if rates:
        seconds = spec.training.steps * (flops_per_step / median(rates) + STEP_OVERHEAD_SECONDS)
        return Estimate(seconds=round(seconds, 3), basis="measured")
    seconds = spec.training.steps * (flops_per_step / calibrated_flop_rate() + STEP_OVERHEAD_SECONDS)
    return Estimate(seconds=round(seconds, 3), basis="calibrated")


@cache
def calibrated_flop_rate() -> float:
    """FLOPs a second of float32 matrix products on one thread of this machine, measured once a process."""
    a = np.ones((MATRIX, MATRIX), dtype=np.float32)
    products = 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < CALIBRATION_SECONDS:
        np.matmul(a, a)
        products += 1
    return products * 2 * MATRIX**3 / elapsed


def _flop_rates(history: Sequence[Any], family: str | None) -> list[float]:
    """FLOPs a second of past jobs, without what a step costs beside them."""
    found = []
    for row in history:
        steps_per_second = (row.result or {}).get("steps_per_second")
        if steps_per_second and family in (None, row.family):
            arithmetic = max(1.0 / steps_per_second - STEP_OVERHEAD_SECONDS, LEAST_SHARE / steps_per_second)
            found.append(row.flops_per_step / arithmetic)
    return found
