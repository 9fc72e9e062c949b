"""Moments of inputs by feature, in float64 and part by part: a data set may fill half of the memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Array = NDArray[Any]
Rows = NDArray[np.int64] | None
"""Places of the rows that count; None: all."""
PART_VALUES = 2**20


def largest(inputs: Array, rows: Rows = None) -> Floats:
    """(features,) The largest absolute value of each: of a table by column, of sequences over rows and time."""
    found = np.zeros(inputs.shape[-1])
    for part in _parts(inputs, rows):
        np.maximum(found, np.abs(part.reshape(-1, inputs.shape[-1])).max(axis=0), out=found)
    return found


def moments(inputs: Array, rows: Rows = None, *, by_feature: bool) -> tuple[Floats, Floats]:
    """(means, deviations), of each feature or, with one number each, of all values; in two passes, which loses nothing
    to a mean that is far from 0."""
    width = inputs.shape[-1] if by_feature else 1
    count = inputs[0].size // width * (len(inputs) if rows is None else len(rows))
    mean = sum((part.reshape(-1, width).sum(axis=0) for part in _parts(inputs, rows)), np.zeros(width)) / count
    squares = (np.square(part.reshape(-1, width) - mean).sum(axis=0) for part in _parts(inputs, rows))
    return mean, np.sqrt(sum(squares, np.zeros(width)) / count)


def moments_of_bytes(inputs: Array) -> tuple[Floats, Floats]:
    """One mean and deviation over all pixels, from how often each byte occurs: exact, and no copy as floats."""
    counts = sum(np.bincount(chunk.ravel(), minlength=256) for chunk in np.array_split(inputs, len(inputs) // 1000 + 1))
    values = np.arange(256.0)
    mean = np.sum(counts * values) / inputs.size
    return np.full(1, mean), np.sqrt(np.sum(counts * (values - mean) ** 2, keepdims=True) / inputs.size)


def _parts(inputs: Array, rows: Rows) -> Iterator[Floats]:
    step = max(1, PART_VALUES // max(1, inputs[0].size))
    for start in range(0, len(inputs) if rows is None else len(rows), step):
        part = inputs[start : start + step] if rows is None else inputs[rows[start : start + step]]
        yield part.astype(np.float64)
