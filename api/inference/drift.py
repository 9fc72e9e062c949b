"""What comes in against what the model was trained on: running moments of the inputs, as shifts and z-scores.

`shift` is (mean now − mean in training) / deviation in training: it says how far, whatever the number of rows.
`z` is shift · √rows: it says how surely.
"""

from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.inference.moments import Alarm, Window

Array = NDArray[np.float32]


class Drift:
    """One a loaded version with moments in its card; belongs to the event loop.

    `share`: of the batches that are looked at. `threshold`: in deviations of the training data.
    """

    def __init__(self, model: Any, name: str, version: int, share: float, threshold: float) -> None:
        mean, variance = _reference(model.card)
        self.mean, self.deviation = np.array(mean), np.sqrt(np.array(variance))
        self.constant = self.deviation == 0.0
        self.share = share
        self._sequences = model.card["input"].get("kind") == "sequence"  # (n, T, F): by feature, over time
        self.columns = model.columns or tuple(f"channel {index}" for index in range(len(mean)))
        self.seen_ns = 0
        self.window = Window(len(mean))
        self.alarm = Alarm("input", f"model {name}, version {version}", threshold)
        self._credit = 0.0
        scale = 1.0 / np.where(self.constant, 1.0, self.deviation)
        self._offset32, self._scale32 = self.mean.astype(np.float32)[:, None], scale.astype(np.float32)[:, None]

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
        with np.errstate(over="ignore"):
            scaled = (by_channel - self._offset32) * self._scale32
        self.window.add(
            len(chunk),
            len(chunk) * by_channel.shape[2],
            scaled.sum(axis=(0, 2), dtype=np.float64),
            np.einsum("nck,nck->c", scaled, scaled, dtype=np.float64),
        )
        self.alarm.hear(self.columns, self.shifts(), self.window.rows)
        self.seen_ns += perf_counter_ns() - began

    def shifts(self) -> NDArray[np.float64]:
        """Of each column or channel, in deviations of the training data. A column that was constant: the change."""
        return self.window.means()

    def report(self) -> dict[str, Any]:
        rows, units = self.window.rows, np.where(self.constant, 1.0, self.deviation)
        columns = zip(
            self.columns, self.shifts(), self.window.deviations(), self.mean, self.deviation, units, strict=True
        )
        return {
            "rows": rows,
            "share": self.share,
            "threshold": self.alarm.threshold,
            "exceeded": sorted(self.alarm.exceeded),
            "inputs": [
                {
                    "name": column,
                    "training_mean": float(mean),
                    "training_deviation": float(deviation),
                    "mean": float(mean + shift * unit),
                    "deviation": float(ratio * unit),
                    "shift": float(shift),
                    "z": float(shift * np.sqrt(rows)),
                }
                for column, shift, ratio, mean, deviation, unit in columns
            ],
            "events": list(self.alarm.events),
        }


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
