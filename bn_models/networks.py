"""The trainable module, built from the list of layers."""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor, nn

from bn_models.architecture import Placed, flat, place
from bn_models.blocks import Conv2d, ImageRows, Linear, Parallel, Residual
from bn_models.initialization import initialize
from bn_models.normalization import BatchNorm, Statistical
from bn_models.per_sample import LocalResponseNorm, SampleNorm
from bn_models.recurrent import LSTM
from bn_models.whitening import Whitening
from core.spec import layers as spec
from core.spec.layers import ActivationKind, Layer
from core.spec.network import InitializationSpec

ACTIVATIONS: dict[ActivationKind, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}

# The widest activation of a chunk stays near the caches of a CPU; an accelerator wants fewer, larger calls.
CPU_CHUNK_ELEMENTS = 2**20
ACCELERATOR_CHUNK_ELEMENTS = 2**26


class Network(nn.Module):
    """The layers, one after the other. Parameters are called `<layer>.weight`, `.bias`, `.gamma`, `.beta`.

    `placed` are the layers with their shapes, `sequence` their modules; what stands inside of residual
    and parallel layers is registered under its own name too, not under theirs.
    """

    def __init__(self, layers: tuple[Layer, ...], input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = layers
        self.input_shape = input_shape
        self.placed = place(layers, input_shape)
        # A tuple is not registered: the modules are, under names that follow the layers'.
        self.sequence = tuple(_assemble(self, item) for item in self.placed)
        for position, layer in enumerate(_statistical(self.sequence)):
            layer.position = position

    def forward(self, x: Tensor) -> Tensor:
        """Scaled inputs (N, *input_shape) → logits, or scaled regression values, (N, outputs)."""
        for module in self.sequence:
            x = module(x)
        return x


def build(
    layers: tuple[Layer, ...], input_shape: tuple[int, ...], initialization: InitializationSpec, seed: int
) -> Network:
    """A float32 network on the CPU, in training mode, its weights drawn as `initialization` and `seed` say.

    Raises SpecInvalid when the layers do not fit one another.
    """
    network = Network(layers, input_shape)
    initialize(network, initialization, seed)
    return network


def rows_at_once(network: Network, device: torch.device) -> int:
    """How many samples to send through the network together where none needs the company of others."""
    widest = max(prod(item.output_shape) for item in flat(network.placed))
    elements = CPU_CHUNK_ELEMENTS if device.type == "cpu" else ACCELERATOR_CHUNK_ELEMENTS
    return max(1, elements // max(widest, prod(network.input_shape)))


def _assemble(network: nn.Module, placed: Placed) -> nn.Module:
    """The module of a layer, registered in `network` with all that stands inside of it."""
    module = _module(placed)
    _attach(network, placed.layer.name, module)
    inside = tuple(tuple(_assemble(network, item) for item in branch) for branch in placed.inside)
    if isinstance(module, Residual):
        module.body, module.shortcut = inside
        for gamma in _gammas_to_zero(module.body):
            nn.init.zeros_(gamma)
    elif isinstance(module, Parallel):
        module.branches = inside
    return module


def _gammas_to_zero(body: tuple[nn.Module, ...]) -> list[nn.Parameter]:
    """The last gamma of a residual body, or of each branch that it ends in, if its options want it at 0."""
    for module in reversed(body):
        if isinstance(module, Parallel):
            found = [gamma for branch in module.branches for gamma in _gammas_to_zero(branch)]
        elif isinstance(module, Residual):
            found = [*_gammas_to_zero(module.body), *_gammas_to_zero(module.shortcut)]
        elif isinstance(module, Statistical | SampleNorm) and module.gamma is not None:
            return [module.gamma] if module.options.zero_last_gamma else []
        else:
            continue
        if found:
            return found
    return []


def _statistical(modules: tuple[nn.Module, ...]) -> Iterator[Statistical]:
    """The statistical layers in the order of computation."""
    for module in modules:
        if isinstance(module, Statistical):
            yield module
        elif isinstance(module, LSTM):
            yield from module.statistical()
        elif isinstance(module, Residual):
            yield from _statistical(module.body + module.shortcut)
        elif isinstance(module, Parallel):
            for branch in module.branches:
                yield from _statistical(branch)


def _module(placed: Placed) -> nn.Module:
    """The module of one layer; weights are left unset, for `initialize` to draw."""
    layer, inputs = placed.layer, placed.input_shape
    match layer:
        case spec.Linear():
            return Linear(inputs[0], layer.features, layer.bias is not False)
        case spec.Conv2d():
            bias = layer.bias is not False
            return Conv2d(inputs[0], layer.channels, layer.kernel_size, layer.stride, layer.padding, bias=bias)
        case spec.Activation():
            return ACTIVATIONS[layer.kind]()
        case spec.Dropout():
            return nn.Dropout(layer.probability)
        case spec.MaxPool2d():
            return nn.MaxPool2d(layer.kernel_size, layer.stride, layer.padding)
        case spec.AveragePool2d():
            return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, count_include_pad=False)
        case spec.GlobalAveragePool2d():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case spec.Flatten():
            return nn.Flatten()
        case spec.ImageRows():
            return ImageRows()
        case spec.LSTM():
            steps, features = inputs
            return LSTM(steps, features, layer)
        case spec.Residual():
            return Residual()
        case spec.Parallel():
            return Parallel()
        case _:
            return _normalization(layer, inputs[0])


def _normalization(layer: spec.Normalization, channels: int) -> nn.Module:
    match layer:
        case spec.BatchNorm():
            return BatchNorm(channels, layer.options)
        case spec.Whitening():
            return Whitening(channels, layer.options)
        case spec.LayerNorm():
            return SampleNorm(channels, 1, layer.options)
        case spec.GroupNorm():
            return SampleNorm(channels, layer.options.groups, layer.options)
        case spec.InstanceNorm():
            return SampleNorm(channels, channels, layer.options)
        case spec.LocalResponseNorm():
            return LocalResponseNorm(layer.options)


def _attach(network: nn.Module, name: str, module: nn.Module) -> None:
    """Registers `module` under a dotted name; torch allows no dots, so the parts become nested modules.

    Not by `add_module`, which refuses a layer that is called like a method of torch's, `type` for one.
    """
    *path, last = name.split(".")
    parent = network
    for part in path:
        inner = parent._modules.get(part) or nn.Module()
        parent._modules[part] = inner
        parent = inner
    parent._modules[last] = module
