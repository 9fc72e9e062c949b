"""Which evaluation was the best so far, and when to stop because no better one comes."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bn_models.networks import Network
from core.spec import EarlyStoppingSpec


@dataclass
class Monitor:
    """Follows one series over the evaluations of a job."""

    series: str
    min_delta: float = 0.0
    patience: int | None = None  # None: never stop
    best: float | None = None
    best_step: int = 0
    stale: int = 0  # evaluations since the best one

    @classmethod
    def of(cls, early_stopping: EarlyStoppingSpec | None, has_validation: bool) -> "Monitor":
        if early_stopping is None:
            return cls("validation/loss" if has_validation else "test/loss")
        return cls(early_stopping.metric, early_stopping.min_delta, early_stopping.patience)

    def observe(self, step: int, score: float) -> bool:
        """Takes note of an evaluation; is it a new best? NaN never is."""
        gain = self._gain(score)
        if gain > self.min_delta or (self.best is None and gain == 0.0):
            self.best, self.best_step, self.stale = score, step, 0
            return True
        self.stale += 1
        return False

    @property
    def exhausted(self) -> bool:
        return self.patience is not None and self.stale >= self.patience

    def _gain(self, score: float) -> float:
        if self.best is None:
            return 0.0 if score - score == 0.0 else float("nan")  # inf and NaN are no first best
        return score - self.best if self.series.endswith("accuracy") else self.best - score

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def restore(self, state: dict[str, Any]) -> None:
        self.best, self.best_step, self.stale = state["best"], state["best_step"], state["stale"]


def copy_weights(network: Network) -> dict[str, Tensor]:
    """All that `load_state_dict` takes, apart from what training goes on to change."""
    return {name: torch.clone(value) for name, value in network.state_dict().items()}
