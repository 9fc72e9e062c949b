"""Loss and accuracy of each step: checked before the update, recorded after it.

On a CPU the loss is a number at once. On a GPU asking for it would stop the queue of kernels at
every step, so values stay on the device until the next flush, and a flag on the device holds back
the update of a step whose loss is not finite, and of all steps after it. Either way the running
averages stay as they were before that step.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from bn_models.guard import RunningGuard
from core.errors import JobFailed
from worker.trainer.reporting import Reporter


class Meter(Protocol):
    def check(self, step: int, loss: Tensor) -> None:
        """Before the update of `step`. Raises JobFailed("non_finite_loss"), now or in `settle`."""
        ...

    def record(self, step: int, rate: float, rows: int, correct: Tensor | None, norm: Tensor | None) -> None:
        """After the update of `step`, whose loss was checked last."""
        ...

    def settle(self) -> None:
        """Brings all that was recorded to the reporter."""
        ...


def meter_for(device: torch.device, optimizer: torch.optim.Optimizer, reporter: Reporter, guard: RunningGuard) -> Meter:
    """The caller lets `guard` take its snapshot before the forward pass of each step."""
    return DeviceMeter(optimizer, reporter, guard, device) if device.type == "cuda" else HostMeter(reporter, guard)


class HostMeter:
    def __init__(self, reporter: Reporter, guard: RunningGuard) -> None:
        self._reporter, self._guard = reporter, guard
        self._loss = 0.0

    def check(self, step: int, loss: Tensor) -> None:
        self._loss = loss.item()
        if not math.isfinite(self._loss):
            self._guard.restore()
            self._reporter.record("train/loss", step, self._loss)
            raise non_finite_loss(step, self._loss)

    def record(self, step: int, rate: float, rows: int, correct: Tensor | None, norm: Tensor | None) -> None:
        record = self._reporter.record
        record("train/loss", step, self._loss)
        if correct is not None:
            record("train/accuracy", step, correct.item() / rows)
        record("optimizer/learning_rate", step, rate)
        if norm is not None:
            record("optimizer/gradient_norm", step, norm.item())

    def settle(self) -> None:
        pass


class DeviceMeter:
    """torch's fused optimizers skip an update while `found_inf` is 1; it stays 1 once it is."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, reporter: Reporter, guard: RunningGuard, device: torch.device
    ) -> None:
        self._reporter, self._guard = reporter, guard
        self._found = torch.zeros((), device=device)
        self._absent = torch.zeros((), device=device)
        self._loss = self._found
        self._pending: list[tuple[int, float, int, bool, bool, Tensor]] = []
        optimizer.found_inf = self._found  # type: ignore[attr-defined]

    def check(self, step: int, loss: Tensor) -> None:
        self._loss = loss.detach()
        self._found.logical_or_(~torch.isfinite(self._loss))
        self._guard.restore_where(self._found.bool())

    def record(self, step: int, rate: float, rows: int, correct: Tensor | None, norm: Tensor | None) -> None:
        parts = [self._loss, self._absent if correct is None else correct, self._absent if norm is None else norm]
        values = torch.stack([part.double() for part in parts])
        self._pending.append((step, rate, rows, correct is not None, norm is not None, values))

    def settle(self) -> None:
        self._guard.settle()
        pending, self._pending = self._pending, []
        if not pending:
            return
        values = torch.stack([values for *_, values in pending]).tolist()
        record = self._reporter.record
        for (step, rate, rows, has_correct, has_norm, _), (loss, correct, norm) in zip(pending, values, strict=True):
            record("train/loss", step, loss)
            if not math.isfinite(loss):
                self._reporter.step = step - 1  # the steps behind it ran, and changed nothing
                raise non_finite_loss(step, loss)
            if has_correct:
                record("train/accuracy", step, correct / rows)
            record("optimizer/learning_rate", step, rate)
            if has_norm:
                record("optimizer/gradient_norm", step, norm)


def non_finite_loss(step: int, loss: float) -> JobFailed:
    return JobFailed(
        "non_finite_loss",
        f"the loss of step {step} is {loss}; its update was not made: lower optimizer.learning_rate, "
        "set optimizer.clip_norm, or add schedule.warmup_steps",
    )
