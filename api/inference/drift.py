"""What comes in against what the model was trained on: running moments of the inputs, as shifts and z-scores.

`shift` is (mean now − mean in training) / deviation in training: it says how far, whatever the number of rows.
`z` is shift · √rows: it says how surely. The window forgets: at WINDOW_ROWS all counts are halved.
"""

import logging
from collections import deque
from time import perf_counter_ns, time_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.clock import rfc3339

logger = logging.getLogger("evenkeel.drift")
Array = NDArray[np.float32]
WINDOW_ROWS = 20_000
LEAST_ROWS = 200
"""Nothing is said to have drifted from fewer."""
EVENTS = 50


class Drift:
    """One a loaded version with moments in its card; belongs to the event loop.

    `share`: of the batches that are looked at. `threshold`: in deviations of the training data.
    """

    def __init__(self, model: Any, name: str, version: int, share: float, threshold: float) -> None:
        mean, variance = _reference(model.card)
        self.mean, self.deviation = np.array(mean), np.sqrt(np.array(variance))
        self.constant = self.deviation == 0.0
        self.share, self.threshold = share, threshold
        self._sequences = model.card["input"].get("kind") == "sequence"  # (n, T, F): by feature, over time
        self.columns = model.columns or tuple(f"channel {index}" for index in range(len(mean)))
        self.rows = self.seen_ns = 0
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self.exceeded: frozenset[str] = frozenset()
        self._what = f"model {name}, version {version}"
        self._credit = 0.0
        scale = 1.0 / np.where(self.constant, 1.0, self.deviation)
        self._offset32, self._scale32 = self.mean.astype(np.float32)[:, None], scale.astype(np.float32)[:, None]
        self._values = 0.0  # a column or a channel
        self._sums = np.zeros(len(mean))
        self._squares = np.zeros(len(mean))

    def see(self, chunk: Array) -> None:
        """Takes rows (n, *shape) into the running moments when it is their turn."""
        self._credit += self.share
        if self._credit < 1.0:
            return
        self._credit -= 1.0
        began = perf_counter_ns()
        chunk = chunk.swapaxes(1, 2) if self._sequences else chunk
        by_channel = chunk.reshape(len(chunk), len(self.mean), -1)
        # Centered on the training mean before it is squared: float32 loses nothing that matters then.
        scaled = (by_channel - self._offset32) * self._scale32
        self._sums += scaled.sum(axis=(0, 2), dtype=np.float64)
        self._squares += np.einsum("nck,nck->c", scaled, scaled, dtype=np.float64)
        self._values += len(chunk) * by_channel.shape[2]
        self.rows += len(chunk)
        if self.rows >= WINDOW_ROWS:
            self._sums /= 2
            self._squares /= 2
            self._values /= 2
            self.rows //= 2
        self._tell()
        self.seen_ns += perf_counter_ns() - began

    def shifts(self) -> NDArray[np.float64]:
        """Of each column or channel, in deviations of the training data. A column that was constant: the change."""
        return self._sums / max(self._values, 1.0)

    def report(self) -> dict[str, Any]:
        shifts = self.shifts()
        ratios = self._squares / max(self._values, 1.0) - np.square(shifts)
        scale = np.where(self.constant, 1.0, self.deviation)
        rows = zip(self.columns, shifts, ratios, self.mean, self.deviation, scale, strict=True)
        return {
            "rows": self.rows,
            "share": self.share,
            "threshold": self.threshold,
            "exceeded": sorted(self.exceeded),
            "inputs": [
                {
                    "name": column,
                    "training_mean": float(mean),
                    "training_deviation": float(deviation),
                    "mean": float(mean + shift * unit),
                    "deviation": float(np.sqrt(max(ratio, 0.0)) * unit),
                    "shift": float(shift),
                    "z": float(shift * np.sqrt(self.rows)),
                }
                for column, shift, ratio, mean, deviation, unit in rows
            ],
            "events": list(self.events),
        }

    def _tell(self) -> None:
        """An event when a column comes to be beyond the threshold, and when it is back."""
        if self.rows < LEAST_ROWS:
            return
        shifts = self.shifts()
        beyond = np.abs(shifts) > self.threshold
        if not beyond.any() and not self.exceeded:
            return
        now = frozenset(self.columns[index] for index in np.flatnonzero(beyond))
        for column in sorted(now ^ self.exceeded):
            kind = "drifted" if column in now else "returned"
            shift = float(shifts[self.columns.index(column)])
            self.events.append({"type": kind, "input": column, "shift": shift, "rows": self.rows, "at": _now()})
            logger.warning("%s: input %s %s: its mean is %.2f deviations off", self._what, column, kind, shift)
        self.exceeded = now


def drift_of(model: Any, name: str, version: int, share: float, threshold: float) -> Drift | None:
    """None where nothing is looked at, or where the card has nothing to compare with."""
    if share == 0.0 or _reference(model.card) == ([], []):
        return None
    return Drift(model, name, version, share, threshold)


def _reference(card: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Mean and variance by column or channel; of cards without moments, from the standardization of their inputs."""
    moments = card["input"].get("moments")
    if moments:
        return moments["mean"], moments["variance"]
    scaling = card.get("scaling") or {}
    if scaling.get("kind") == "standardize" and card["input"].get("kind") == "table":
        return scaling["offset"], [1.0 / scale**2 for scale in scaling["scale"]]
    return [], []


def _now() -> str:
    return rfc3339(time_ns() // 1000) or ""
