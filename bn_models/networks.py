"""The trainable module, built from the list of layers."""

from math import prod

import torch
from torch import Tensor, nn

from bn_models.architecture import Placed, place
from bn_models.initialization import initialize
from bn_models.normalization import BatchNorm
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


class Linear(nn.Linear):
    """Without torch's own first draw, which would take numbers from the default generator."""

    def reset_parameters(self) -> None:
        """Leaves the weights unset; `initialize` draws them."""


class Conv2d(nn.Conv2d):
    """Without torch's own first draw, as `Linear`."""

    def reset_parameters(self) -> None:
        """Leaves the weights unset; `initialize` draws them."""


class Network(nn.Module):
    """The layers, one after the other. Parameters are called `<layer>.weight`, `.bias`, `.gamma`, `.beta`."""

    def __init__(self, layers: tuple[Layer, ...], input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = layers
        self.input_shape = input_shape
        # A tuple is not registered: the modules are, below, under names that follow the layers'.
        self._sequence = tuple(_module(placed) for placed in place(layers, input_shape))
        for layer, module in zip(layers, self._sequence, strict=True):
            _attach(self, layer.name, module)

    def forward(self, x: Tensor) -> Tensor:
        """Scaled inputs (N, *input_shape) → logits, or scaled regression values, (N, outputs)."""
        for module in self._sequence:
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
    widest = max(prod(item.output_shape) for item in place(network.layers, network.input_shape))
    elements = CPU_CHUNK_ELEMENTS if device.type == "cpu" else ACCELERATOR_CHUNK_ELEMENTS
    return max(1, elements // max(widest, prod(network.input_shape)))


def _module(placed: Placed) -> nn.Module:
    """The module of one layer; weights are left unset, for `initialize` to draw."""
    layer, inputs = placed.layer, placed.input_shape
    match layer:
        case spec.Linear():
            return Linear(inputs[0], layer.features, layer.bias)
        case spec.Conv2d():
            return Conv2d(inputs[0], layer.channels, layer.kernel_size, layer.stride, layer.padding, bias=layer.bias)
        case spec.BatchNorm():
            return BatchNorm(inputs[0], layer.options)
        case spec.Activation():
            return ACTIVATIONS[layer.kind]()
        case spec.Dropout():
            return nn.Dropout(layer.probability)
        case spec.MaxPool2d():
            return nn.MaxPool2d(layer.kernel_size, layer.stride)
        case spec.GlobalAveragePool2d():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case spec.Flatten():
            return nn.Flatten()


def _attach(network: nn.Module, name: str, module: nn.Module) -> None:
    """Registers `module` under a dotted name; torch allows no dots, so the parts become nested modules."""
    *path, last = name.split(".")
    parent = network
    for part in path:
        if part not in parent._modules:
            parent.add_module(part, nn.Module())
        parent = parent.get_submodule(part)
    parent.add_module(last, module)
