"""Fewer points of a series, with the same extremes."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def kept(values: Floats, maximum: int) -> Indices:
    """Indices, ascending, of at most `maximum` >= 2 of `values`.

    The first and the last stay; of each of the equal buckets between them the first minimum, the first
    maximum and, where there is one, the first NaN.
    """
    count = len(values)
    if count <= maximum:
        return np.arange(count)
    inner = values[1:-1]
    missing = np.isnan(inner)
    buckets = (maximum - 2) // (3 if missing.any() else 2)
    chosen = [np.array([0, count - 1])]
    if buckets:
        bounds = np.linspace(0, count - 2, buckets + 1).astype(np.intp)
        chosen += [1 + index for index in _extremes(inner, missing, bounds)]
    return np.unique(np.concatenate(chosen))


def _extremes(values: Floats, missing: NDArray[np.bool_], bounds: Indices) -> tuple[Indices, ...]:
    """Where the minimum, the maximum and the first NaN of each bucket are. No bucket is empty."""
    lows = np.where(missing, np.inf, values)
    highs = np.where(missing, -np.inf, values)
    spans = list(pairwise(bounds.tolist()))
    lowest = np.array([start + np.argmin(lows[start:end]) for start, end in spans])
    highest = np.array([start + np.argmax(highs[start:end]) for start, end in spans])
    not_numbers = np.array([start + np.argmax(missing[start:end]) for start, end in spans])
    return lowest, highest, not_numbers[missing[not_numbers]]
