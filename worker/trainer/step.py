"""Forward and backward pass of one step: by autograd, compiled, or by hand where that gives the same bits."""

import itertools
from typing import Protocol

import torch
from torch import Tensor

from bn_models.networks import Network
from core.spec import JobSpec
from core.spec import layers as spec
from core.spec.layers import Layer
from worker.trainer.compiling import Forward
from worker.trainer.direct import OWNERS, DirectPasses, is_direct
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


def passes_for(network: Network, job: JobSpec, device: torch.device, forward: Forward) -> Passes:
    """`forward` is the network itself, or what became of it by compilation."""
    training = job.training
    if is_direct(network, job, device):
        return DirectPasses(network, training.label_smoothing)
    autocast = device.type if training.precision == "bf16" else None
    forward = forward if training.compile else InPlace(network)
    return AutogradPasses(list(network.parameters()), forward, training.label_smoothing, autocast)


class InPlace:
    """A network in training, whose ReLUs write over the maps they are given where nobody else needs these.

    The same bits, and a twentieth less time of a convnet. Only for the passes of a step: who looks at
    single layers, or keeps what one gave, finds the modules as they always are.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._modules = [network.get_submodule(name) for name in _rectifiers(network.layers)]

    def __call__(self, x: Tensor) -> Tensor:
        self._set(True)
        try:
            outputs: Tensor = self._network(x)
            return outputs
        finally:
            self._set(False)

    def _set(self, in_place: bool) -> None:
        for module in self._modules:
            module.__dict__["inplace"] = in_place  # past Module.__setattr__, which looks for parameters


def _rectifiers(layers: tuple[Layer, ...]) -> list[str]:
    """The ReLUs that follow a layer whose output is a tensor of its own which its backward pass does not need."""
    names: list[str] = []
    for before, layer in itertools.pairwise((None, *layers)):
        match layer:
            case spec.Activation(kind="relu") if isinstance(before, OWNERS):
                names.append(layer.name)
            case spec.Residual():
                names += _rectifiers(layer.body) + _rectifiers(layer.shortcut)
            case spec.Parallel():
                names += [name for branch in layer.branches for name in _rectifiers(branch)]
            case _:
                pass
    return names


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
