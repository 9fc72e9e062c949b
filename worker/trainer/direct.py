"""The passes of a small dense network by hand: autograd's kernels in autograd's order, so with autograd's bits.

On a network like the paper's (784-100-100-100-10) autograd's own work, building a graph and walking it,
takes about as long as the matrix products. Here each layer calls the forward kernel that its module would
call, and the backward kernel of its derivative formula (torch's derivatives.yaml), the products into
tensors that are allocated once. tests/worker/trainer/test_direct.py holds both ways to the same bits.
"""

import torch
from torch import Tensor

from bn_models.architecture import Placed
from bn_models.exact import LONG_SUM
from bn_models.networks import Network
from bn_models.normalization import BatchNorm
from core.spec import JobSpec
from core.spec import layers as spec
from worker.trainer.parts import (
    ActivationPart,
    AnyLoss,
    BatchNormPart,
    CrossEntropy,
    FlattenPart,
    Head,
    LinearPart,
    ModulePart,
    Part,
)

_LAYERS = spec.Linear | spec.Flatten | spec.Activation | spec.BatchNorm | spec.Dropout


def is_direct(network: Network, job: JobSpec, device: torch.device) -> bool:
    """Is it a network of dense layers, trained in float32 on a CPU? A convolution takes longer than autograd's work."""
    simple = device.type == "cpu" and job.training.precision == "float32" and not job.training.compile
    dense = any(isinstance(layer, spec.Linear) for layer in network.layers)
    return simple and dense and all(isinstance(layer, _LAYERS) for layer in network.layers)


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
            for part in reversed(self._parts[self._first :]):
                gradient = part.backward(gradient)
        return self._gradients


def _first_that_learns(network: Network) -> int:
    """Below it nobody asks for a gradient."""
    learns = (any(True for _ in network.get_submodule(layer.name).parameters()) for layer in network.layers)
    return next(position for position, one in enumerate(learns) if one)


def _parts(network: Network, rows: int) -> tuple[Part, ...]:
    first = _first_that_learns(network)
    return tuple(_part(network, item, rows, position > first) for position, item in enumerate(network.placed))


def _part(network: Network, placed: Placed, rows: int, learns_below: bool) -> Part:
    layer = placed.layer
    module = network.get_submodule(layer.name)
    match layer:
        case spec.Linear():
            return LinearPart(module, rows, learns_below)
        case spec.Activation(kind=kind):
            return ActivationPart(kind)
        case spec.Flatten():
            return FlattenPart()
        case spec.BatchNorm() if isinstance(module, BatchNorm) and _is_one_call(module, placed, rows):
            return BatchNormPart(module, learns_below)
        case _:
            return ModulePart(module, learns_below)


def _is_one_call(module: BatchNorm, placed: Placed, rows: int) -> bool:
    """Is it one call of torch's kernel, with the same factor each time? Ghost batches are cut and joined, the
    factor of a cumulative average falls, a frozen layer moves nothing, and long sums are taken in parts."""
    ordinary = module.momentum is not None and module.ghost_rows is None and not module.frozen
    return ordinary and len(placed.input_shape) == 1 and rows <= LONG_SUM
