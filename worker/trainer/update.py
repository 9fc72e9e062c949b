"""One optimizer update, without what torch's `step` looks up anew each time: a third of its time on a small network."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from worker.trainer.optimization import MULTIPLIER

Gradients = Sequence[Tensor]
Kernel = Callable[[list[Tensor], float], None]


class Update:
    """Calls the fused kernels that the optimizer would call, with the tensors of its state.

    The first update of an attempt is the optimizer's own, which makes that state where there is none.
    On a GPU every update is: a flag on the device may hold it back (see `meter`).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self._optimizer = optimizer
        self._on_host = device.type == "cpu"
        self._kernels: list[tuple[dict[str, Any], list[Tensor], Kernel]] = []
        self._rate: float | None = None

    @torch.no_grad()
    def __call__(self, rate: float) -> None:
        """Updates every parameter by its `.grad`, at the learning rate `rate` times that of its group."""
        if rate != self._rate:
            self._rate = rate
            for group in self._optimizer.param_groups:
                group["lr"] = rate * group[MULTIPLIER]
        if not self._kernels:
            self._optimizer.step()
            if self._on_host:
                self._kernels = [_kernel(self._optimizer, group) for group in self._optimizer.param_groups]
            return
        for group, parameters, kernel in self._kernels:
            kernel([parameter.grad for parameter in parameters], group["lr"])  # type: ignore[misc]


def _kernel(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> tuple[dict[str, Any], list[Tensor], Kernel]:
    parameters = list(group["params"])
    state = [optimizer.state[parameter] for parameter in parameters]
    if isinstance(optimizer, torch.optim.SGD):
        return group, parameters, partial(_sgd, group, parameters, [one["momentum_buffer"] for one in state if one])
    call = torch._fused_adamw_ if isinstance(optimizer, torch.optim.AdamW) else torch._fused_adam_
    averages, squares, steps = ([one[key] for one in state] for key in ("exp_avg", "exp_avg_sq", "step"))
    return group, parameters, partial(_adam, call, group, parameters, averages, squares, steps)


def _sgd(
    group: dict[str, Any], parameters: list[Tensor], momenta: list[Tensor], gradients: list[Tensor], rate: float
) -> None:
    torch._fused_sgd_(
        parameters,
        gradients,
        momenta,
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=rate,
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=False,
        is_first_step=False,
    )


def _adam(
    call: Callable[..., None],
    group: dict[str, Any],
    parameters: list[Tensor],
    averages: list[Tensor],
    squares: list[Tensor],
    steps: list[Tensor],
    gradients: list[Tensor],
    rate: float,
) -> None:
    torch._foreach_add_(steps, 1)
    beta1, beta2 = group["betas"]
    call(
        parameters,
        gradients,
        averages,
        squares,
        [],
        steps,
        amsgrad=False,
        lr=rate,
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
