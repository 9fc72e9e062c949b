"""Forward and backward pass of one step: by autograd, compiled, or by hand where that gives the same bits."""

from typing import Protocol

import torch
from torch import Tensor

from bn_models.networks import Network
from core.spec import JobSpec
from worker.trainer.compiling import Forward
from worker.trainer.direct import DirectPasses, is_direct
from worker.trainer.evaluation import loss_of


class Passes(Protocol):
    outputs: Tensor
    """Of the last forward pass, (N, outputs)."""

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch, on its device."""
        ...

    def backward(self) -> list[Tensor]:
        """The gradients of that loss, in the order of the network's parameters; they are in `.grad` too."""
        ...


def passes_for(network: Network, spec: JobSpec, device: torch.device, forward: Forward) -> Passes:
    """`forward` is the network itself, or what became of it by compilation."""
    training = spec.training
    if is_direct(network, spec, device):
        return DirectPasses(network, training.label_smoothing)
    autocast = device.type if training.precision == "bf16" else None
    return AutogradPasses(list(network.parameters()), forward, training.label_smoothing, autocast)


class AutogradPasses:
    def __init__(self, parameters: list[Tensor], forward: Forward, smoothing: float, autocast: str | None) -> None:
        """`autocast`: the type of the device whose matrix products are to be bfloat16; None: float32."""
        self._parameters, self._forward = parameters, forward
        self._smoothing, self._autocast = smoothing, autocast
        self.outputs = self._loss = torch.empty(0)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        outputs = self._outputs(inputs)
        self.outputs = outputs.detach()
        self._loss = loss_of(outputs, targets, self._smoothing)
        return self._loss.detach()

    def backward(self) -> list[Tensor]:
        for parameter in self._parameters:
            parameter.grad = None
        self._loss.backward()  # type: ignore[no-untyped-call]
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]

    def _outputs(self, inputs: Tensor) -> Tensor:
        if self._autocast is None:
            return self._forward(inputs)
        with torch.autocast(self._autocast, torch.bfloat16):
            outputs = self._forward(inputs)
        return outputs.float()
