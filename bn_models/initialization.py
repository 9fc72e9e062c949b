"""How weights start: each from a generator of its own, seeded by the job's seed and the parameter's name."""

from math import sqrt

import torch
from torch import Tensor, nn

from bn_models.randomness import derive_seed
from core.spec.network import InitializationSpec


def initialize(network: nn.Module, initialization: InitializationSpec, seed: int) -> None:
    """Draws the weights of all linear and convolution layers; their biases become 0.

    A weight depends on `seed`, its own name and its shape alone, so networks with and without batch
    norm share every weight that both have.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            generator = torch.Generator().manual_seed(derive_seed(seed, f"{name}.weight"))
            with torch.no_grad():
                module.weight.copy_(draw(tuple(module.weight.shape), initialization, generator))
                if module.bias is not None:
                    module.bias.zero_()


def draw(shape: tuple[int, ...], initialization: InitializationSpec, generator: torch.Generator) -> Tensor:
    """A float32 weight of `shape` (outputs, inputs, *kernel), as InitializationSpec says."""
    deviation = initialization.scale * _standard_deviation(shape, initialization.kind)
    weight = torch.empty(shape)
    if initialization.kind.endswith("normal"):
        return weight.normal_(0.0, deviation, generator=generator)
    bound = initialization.scale if initialization.kind == "uniform" else deviation * sqrt(3.0)
    return weight.uniform_(-bound, bound, generator=generator)


def _standard_deviation(shape: tuple[int, ...], kind: str) -> float:
    """Glorot & Bengio (2010): sqrt(2 / (fan in + fan out)); He et al. (2015): sqrt(2 / fan in); else 1."""
    window = torch.Size(shape[2:]).numel()
    inputs, outputs = shape[1] * window, shape[0] * window
    if kind.startswith("xavier"):
        return sqrt(2.0 / (inputs + outputs))
    return sqrt(2.0 / inputs) if kind.startswith("he") else 1.0
