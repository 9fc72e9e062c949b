"""The passes of common networks by hand: autograd's kernels in autograd's order, so with autograd's bits.

On a network like the paper's (784-100-100-100-10) autograd's own work, building a graph and walking it,
takes about as long as the matrix products. Here each layer calls the forward kernel that its module would
call, and the backward kernel of its derivative formula (torch's derivatives.yaml), products into tensors
that are allocated once, activations and their gradients in place. Layers that are not written out go
through autograd one by one. tests/worker/trainer/test_direct.py holds both ways to the same bits.
"""

import torch
from torch import Tensor, nn

from bn_models.architecture import Placed
from bn_models.exact import unwarned
from bn_models.networks import Network
from bn_models.normalization import BatchNorm
from core.spec import JobSpec
from core.spec import layers as spec
from core.spec.layers import Layer
from worker.trainer.heads import AnyLoss, CrossEntropy, Head
from worker.trainer.parts import (
    ActivationPart,
    BatchNormPart,
    Conv2dPart,
    FlattenPart,
    GlobalAveragePart,
    LinearPart,
    MaxPoolPart,
    ModulePart,
    Part,
    ResidualPart,
)

_LAYERS = (
    spec.Linear
    | spec.Conv2d
    | spec.Flatten
    | spec.Activation
    | spec.BatchNorm
    | spec.Dropout
    | spec.MaxPool2d
    | spec.AveragePool2d
    | spec.GlobalAveragePool2d
)
OWNERS = spec.Linear | spec.Conv2d | spec.BatchNorm | spec.Residual
"""They give a tensor of its own, which their backward pass does not need."""


def is_direct(network: Network, job: JobSpec, device: torch.device) -> bool:
    """Is it made of such layers alone, and trained in float32 on a CPU?"""
    simple = device.type == "cpu" and job.training.precision == "float32" and not job.training.compile
    learns = next((layer for layer in network.layers if _has_parameters(network, layer)), None)
    begins = isinstance(learns, _LAYERS)  # inside of a residual block something learns below
    return simple and begins and all(_is_simple(layer) for layer in network.layers)


def _is_simple(layer: Layer) -> bool:
    if isinstance(layer, spec.Residual):
        return all(_is_simple(inner) for inner in (*layer.body, *layer.shortcut))
    return isinstance(layer, _LAYERS)


def _has_parameters(network: Network, layer: Layer) -> bool:
    if isinstance(layer, spec.Residual):
        return any(_has_parameters(network, inner) for inner in (*layer.body, *layer.shortcut))
    return any(True for _ in network.get_submodule(layer.name).parameters())


class DirectPasses:
    """What `AutogradPasses` is, with gradients that stay in the same tensors."""

    def __init__(self, network: Network, smoothing: float) -> None:
        self._network, self._smoothing = network, smoothing
        parameters = list(network.parameters())
        self._gradients = [torch.empty_like(parameter) for parameter in parameters]
        for parameter, gradient in zip(parameters, self._gradients, strict=True):
            parameter.grad = gradient
        self._parts_of: dict[int, tuple[Part, ...]] = {}  # by rows: products have the shape of the batch
        self._parts: tuple[Part, ...] = ()
        self._first = _first_that_learns(network)
        self._head: Head | None = None
        self.outputs = torch.empty(0)

    @torch.no_grad()
    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        rows = len(inputs)
        if rows not in self._parts_of:
            self._parts_of[rows] = _parts(self._network, rows)
        self._parts = self._parts_of[rows]
        x = inputs
        with unwarned():
            for part in self._parts:
                x = part.forward(x)
        self.outputs = x
        plain = self._smoothing == 0.0 and targets.dtype == torch.int64
        self._head = CrossEntropy(x, targets) if plain else AnyLoss(x, targets, self._smoothing)
        return self._head.loss

    @torch.no_grad()
    def backward(self) -> list[Tensor]:
        if self._head is not None:
            gradient = self._head.backward()
            with unwarned():
                for part in reversed(self._parts[self._first :]):
                    gradient = part.backward(gradient)
        return self._gradients


def _first_that_learns(network: Network) -> int:
    """Below it nobody asks for a gradient."""
    return next(position for position, layer in enumerate(network.layers) if _has_parameters(network, layer))


def _parts(network: Network, rows: int) -> tuple[Part, ...]:
    first = _first_that_learns(network)
    return _sequence(network, network.placed, rows, first)


def _sequence(network: Network, placed: tuple[Placed, ...], rows: int, first: int = -1) -> tuple[Part, ...]:
    """`first`: the position of the first layer that learns; -1: something below them does."""
    before: tuple[Placed | None, ...] = (None, *placed)
    return tuple(
        _part(network, item, rows, position > first, one is not None and isinstance(one.layer, OWNERS))
        for position, (one, item) in enumerate(zip(before, placed, strict=False))
    )


def _part(network: Network, placed: Placed, rows: int, learns_below: bool, in_place: bool) -> Part:
    module = network.get_submodule(placed.layer.name)
    match placed.layer:
        case spec.Linear():
            return LinearPart(module, rows, learns_below)
        case spec.Conv2d() if isinstance(module, nn.Conv2d):
            return Conv2dPart(module, learns_below)
        case spec.Activation(kind=kind):
            return ActivationPart(kind, in_place)
        case spec.Flatten():
            return FlattenPart()
        case spec.MaxPool2d() if isinstance(module, nn.MaxPool2d):
            return MaxPoolPart(module)
        case spec.GlobalAveragePool2d():
            return GlobalAveragePart()
        case spec.Residual():
            body, shortcut = (_sequence(network, branch, rows) for branch in placed.inside)
            return ResidualPart(body, shortcut)
        case spec.BatchNorm() if isinstance(module, BatchNorm) and _is_ordinary(module):
            return BatchNormPart(module, learns_below)
        case _:
            return ModulePart(module, learns_below)


def _is_ordinary(module: BatchNorm) -> bool:
    """Ghost batches are cut and joined, the factor of a cumulative average falls, a frozen layer moves nothing."""
    return module.momentum is not None and module.ghost_rows is None and not module.frozen
