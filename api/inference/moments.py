"""Running moments of scaled values by channel, and who of them is off."""

import logging
from collections import deque
from time import time_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.clock import rfc3339

logger = logging.getLogger("evenkeel.drift")
Channels = NDArray[np.float64]
WINDOW_ROWS = 20_000
LEAST_ROWS = 200
"""Nothing is said to have drifted from fewer."""
FARTHEST = 1e6
"""Deviations from the training mean, in the root of the mean square of a batch."""
EVENTS = 50


class Window:
    """It forgets: at WINDOW_ROWS all counts are halved. One thread adds, any may read."""

    def __init__(self, channels: int) -> None:
        self._state = (0, 0.0, np.zeros(channels), np.zeros(channels))  # rows, values a channel, sums, squares

    @property
    def rows(self) -> int:
        return self._state[0]

    def add(self, rows: int, values: int, sums: Channels, squares: Channels) -> None:
        """So many rows, with so many values a channel. Rows that are FARTHEST out are left out: one of them would be
        all that the window shows for ever."""
        if not (squares < values * FARTHEST**2).all():
            return
        rows_before, values_before, sums_before, squares_before = self._state
        rows += rows_before
        share = 0.5 if rows >= WINDOW_ROWS else 1.0
        self._state = (
            int(rows * share),
            (values_before + values) * share,
            (sums_before + sums) * share,
            (squares_before + squares) * share,
        )

    def means(self) -> Channels:
        _, values, sums, _ = self._state
        return sums / max(values, 1.0)

    def deviations(self) -> Channels:
        _, values, sums, squares = self._state
        values = max(values, 1.0)
        return np.sqrt(np.maximum(squares / values - np.square(sums / values), 0.0))


class Alarm:
    """An event when one of `kind` comes to be beyond the threshold, and when it is back."""

    def __init__(self, kind: str, what: str, threshold: float) -> None:
        self.threshold = threshold
        self.exceeded: frozenset[str] = frozenset()
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self._kind, self._what = kind, what

    def hear(self, names: tuple[str, ...], shifts: Channels, rows: int) -> None:
        """The shift of each, from so many rows."""
        if rows < LEAST_ROWS:
            return
        beyond = np.abs(shifts) > self.threshold
        if not beyond.any() and not self.exceeded:
            return
        now = frozenset(names[index] for index in np.flatnonzero(beyond))
        for name in sorted(now ^ self.exceeded):
            happened = "drifted" if name in now else "returned"
            shift = float(shifts[names.index(name)])
            at = rfc3339(time_ns() // 1000) or ""
            self.events.append({"type": happened, self._kind: name, "shift": shift, "rows": rows, "at": at})
            logger.warning(
                "%s: %s %s %s: its mean is %.2f deviations off", self._what, self._kind, name, happened, shift
            )
        self.exceeded = now
