"""How long a job will take: from what past jobs took, or else from a short test of this machine."""

import math
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
NEAREST = 5
"""Of these, the ones whose steps are most alike in size tell how fast it goes."""
LEAST_SECONDS = 0.5
"""A shorter training says more about how one begins and is evaluated than about its steps."""
LARGER = 4.0
"""Steps so many times as large as any that was measured use the machine better than those did."""
CALIBRATION_SECONDS = 0.02
MATRIX = 64  # small enough that the linear algebra library uses one thread, as a trainer does by default
STEP_OVERHEAD_SECONDS = 4e-4
"""What a step costs beside its arithmetic: batch, kernel launches, optimizer, metrics."""
LEAST_SHARE = 0.1
"""At least this share of a past step was arithmetic."""

Measured = tuple[float, float]
"""FLOPs of a step, and how many of them a second."""


def estimate(spec: JobSpec, flops_per_step: int, history: Sequence[Any]) -> Estimate:
    """Seconds of training. `history`: rows of `queries.jobs.recent_step_rates`; the same family counts first."""
    measured = _measured(history, spec.network.family) or _measured(history, None)
    rate = _rate_of_steps_like(flops_per_step, measured) if measured else calibrated_flop_rate()
    seconds = spec.training.steps * (flops_per_step / rate + STEP_OVERHEAD_SECONDS)
    return Estimate(seconds=round(seconds, 3), basis="measured" if measured else "calibrated")


def _rate_of_steps_like(flops: int, measured: list[Measured]) -> float:
    """FLOPs a second. Products of small matrices reach a tenth of what large ones do, so that only steps of a
    like size tell; beyond them it is at least what this machine reaches in its test."""
    ranked = sorted(measured, key=lambda past: abs(math.log(max(flops, 1) / past[0])))[:NEAREST]
    rate = median(rate for _, rate in ranked)
    return max(rate, calibrated_flop_rate()) if flops > LARGER * ranked[0][0] else rate


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


def _measured(history: Sequence[Any], family: str | None) -> list[Measured]:
    """Past steps, without what a step costs beside its arithmetic."""
    found = []
    for row in history:
        result = row.result or {}
        steps_per_second = result.get("steps_per_second")
        if steps_per_second and result.get("training_seconds", 0.0) >= LEAST_SECONDS and family in (None, row.family):
            arithmetic = max(1.0 / steps_per_second - STEP_OVERHEAD_SECONDS, LEAST_SHARE / steps_per_second)
            found.append((float(row.flops_per_step), row.flops_per_step / arithmetic))
    return found
