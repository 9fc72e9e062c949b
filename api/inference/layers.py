"""What the normalized layers of a model get now against the population statistics that it carries.

A share of the batches runs a second time, beside the requests, through the graph with the nodes that publishing wrote
for it (`bn_models.export.watching`). The session that answers is not touched. Of each channel that gives
(x − E[x]) / sqrt(Var[x] + eps), 0 on average over the training data: its mean now is the channel's shift.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Executor
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.inference.moments import Alarm, Channels, Window
from bn_models.receipt import WATCHED, open_session
from core.artifacts import ArtifactStore

logger = logging.getLogger("evenkeel.drift")
Array = NDArray[np.float32]


NOT_CHECKED = "this version was published before layers were watched: publish it again, by a retry of its job"
NOT_WATCHED = "EVENKEEL_DRIFT_LAYERS_SHARE is 0"
NONE_SHOWN = "no layer of this version can be watched"


class LayerDrift:
    """One a loaded version with watched layers. `see` belongs to the event loop, all else to `beside`, one thread.

    `content` reads the graph with those nodes, when the first batch is looked at; `watch` is what the card says of
    them.
    """

    def __init__(
        self,
        watch: dict[str, Any],
        what: str,
        content: Callable[[], bytes],
        beside: Executor,
        share: float,
        threshold: float,
    ) -> None:
        watched = watch["layers"]
        self.share = share
        self.names = tuple(layer["name"] for layer in watched)
        self.seen_ns = self.bytes = 0
        self.problem: str | None = None
        self.alarm = Alarm("layer", what, threshold)
        self._watched, self._left_out = watched, watch["left_out"]
        self._ends = np.cumsum([layer["channels"] for layer in watched])
        self._starts = self._ends - [layer["channels"] for layer in watched]
        self.window = Window(int(self._ends[-1]))
        self._what, self._content, self._beside = what, content, beside
        self._session: Any = None
        self._credit = 0.0
        self._busy = False

    def see(self, chunk: Array) -> None:
        """Takes rows (n, *shape) along when it is their turn and those before are done."""
        self._credit += self.share
        if self._credit < 1.0 or self._busy or self.problem is not None:
            return
        self._credit %= 1.0
        self._busy = True
        try:
            self._beside.submit(self._look, chunk)
        except RuntimeError:
            self.problem = "the service is stopping"

    def shifts(self) -> Channels:
        """The largest of each layer's channels, in deviations that the layer normalizes by."""
        means = self.window.means()
        return means[self._largest(means)]

    def report(self) -> dict[str, Any]:
        return {
            "rows": self.window.rows,
            "share": self.share,
            "threshold": self.alarm.threshold,
            "exceeded": sorted(self.alarm.exceeded),
            "watched": self._report(),
            "left_out": self._left_out,
            "problem": self.problem,
            "events": list(self.alarm.events),
        }

    def _report(self) -> list[dict[str, Any]]:
        means, deviations, root = self.window.means(), self.window.deviations(), np.sqrt(self.window.rows)
        beyond = np.add.reduceat(np.abs(means) > self.alarm.threshold, self._starts, dtype=np.int64)
        parts = zip(self._watched, self._largest(means), self._starts, beyond, strict=True)
        return [
            {
                "name": layer["name"],
                "channels": layer["channels"],
                "blind": layer["blind"],
                "channel": int(place - start),
                "shift": float(means[place]),
                "z": float(means[place] * root),
                "deviation": float(deviations[place]),
                "beyond": int(count),
            }
            for layer, place, start, count in parts
        ]

    def _largest(self, means: Channels) -> NDArray[np.int64]:
        """The place of each layer's channel with the largest shift."""
        parts = zip(self._starts, self._ends, strict=True)
        return np.array([start + np.abs(means[start:end]).argmax() for start, end in parts])

    def _look(self, chunk: Array) -> None:
        began = perf_counter_ns()
        try:
            if self._session is None:
                content = self._content()
                self._session, self.bytes = open_session(content), len(content)
            means, squares = self._session.run(WATCHED, {"input": chunk})
        except Exception as error:  # whatever it is, answers do not depend on it
            self.problem = f"the graph with its layers can not be run: {error}"
            logger.warning("%s: %s", self._what, self.problem)
            return
        finally:
            self._busy = False
        rows = len(chunk)
        self.window.add(rows, rows, means.sum(axis=0, dtype=np.float64), squares.sum(axis=0, dtype=np.float64))
        self.alarm.hear(self.names, self.shifts(), self.window.rows)
        self.seen_ns += perf_counter_ns() - began


def layer_drift_of(
    store: ArtifactStore,
    artifacts: dict[str, Any],
    card: dict[str, Any],
    what: str,
    beside: Executor,
    share: float,
    threshold: float,
) -> LayerDrift | None:
    """None where no layer is watched; `unwatched` says why."""
    if share == 0.0 or unwatched(card) is not None:
        return None

    def content() -> bytes:
        return b"".join(store.get(artifacts[part]["name"], artifacts[part]["sha256"]) for part in ("onnx", "watch"))

    return LayerDrift(card["watch"], what, content, beside, share, threshold)


def unwatched(card: dict[str, Any]) -> str | None:
    """Why no layer of this version can be watched, if so."""
    watch = card.get("watch")
    if watch is None:
        return NOT_CHECKED
    if watch["layers"]:
        return None
    left_out = "; ".join(f"{name}: {reason}" for name, reason in sorted(watch["left_out"].items()))
    return f"{NONE_SHOWN}: {left_out}" if left_out else NONE_SHOWN
