"""How weights start: each from a generator of its own, seeded by the job's seed and the parameter's name."""

from math import sqrt

import torch
from torch import Tensor, nn

from bn_models.blocks import Conv2d, Linear
from bn_models.randomness import derive_seed
from bn_models.recurrent import LSTM
from core.spec.network import InitializationSpec


def initialize(network: nn.Module, initialization: InitializationSpec, seed: int) -> None:
    """Draws the weights of all linear, convolution and LSTM layers; biases become 0, those of forget gates 1.

    A weight depends on `seed`, its own name and its shape alone, so networks with and without batch
    norm share every weight that both have. An open forget gate lets the first gradients through time
    (Gers, Schmidhuber & Cummins 2000).
    """
    for name, module in network.named_modules():
        if isinstance(module, Linear | Conv2d):
            generator = torch.Generator().manual_seed(derive_seed(seed, f"{name}.weight"))
            with torch.no_grad():
                module.weight.copy_(draw(tuple(module.weight.shape), initialization, generator, module.gates))
                if module.bias is not None:
                    module.bias.zero_()
        elif isinstance(module, LSTM):
            with torch.no_grad():
                module.bias.zero_()
                module.bias[module.units : 2 * module.units] = 1.0


def draw(
    shape: tuple[int, ...], initialization: InitializationSpec, generator: torch.Generator, gates: int = 1
) -> Tensor:
    """A float32 weight of `shape` (outputs, inputs, *kernel), as InitializationSpec says.

    `gates`: so many layers stand in it one below the other; the deviation is that of one of them.
    """
    one = (shape[0] // gates, *shape[1:])
    deviation = initialization.scale * _standard_deviation(one, initialization.kind)
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
