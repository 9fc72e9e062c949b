"""The family `resnet` (He, Zhang, Ren & Sun 2015, Figure 5, Table 1 and section 4.2) as a list."""

from dataclasses import dataclass

from bn_models.architecture.blocks import Blocks
from bn_models.architecture.mlp import dropped
from core.spec.layers import Activation, Conv2d, GlobalAveragePool2d, Layer, Linear, MaxPool2d, Residual
from core.spec.network import ResNetSpec

EXPANSION = 4  # a bottleneck's last convolution has so many times the maps of the others


@dataclass(frozen=True)
class Block:
    """One residual block: its name, the maps it gets, and those of its 3×3 convolutions with their stride."""

    name: str
    inputs: int
    channels: int
    stride: int


def resnet_layers(network: ResNetSpec, blocks: Blocks, outputs: int) -> tuple[Layer, ...]:
    """The stem, the stages of residual blocks, a global average, and a linear output layer."""
    layers = [*_stem(network, blocks)]
    inputs = network.width
    for stage, count in enumerate(network.blocks, start=1):
        for number in range(1, count + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            block = Block(f"stage{stage}.block{number}", inputs, network.width * 2 ** (stage - 1), stride)
            layers += _residual(block, network, blocks)
            inputs = _width(block, network)
    layers.append(GlobalAveragePool2d(name="head.global_average"))
    return (*layers, *dropped("head", network.dropout), Linear(name="output.linear", features=outputs))


def _stem(network: ResNetSpec, blocks: Blocks) -> tuple[Layer, ...]:
    if network.stem == "small":
        return (_conv("stem", network.width, 3), *blocks.activated("stem", network.activation))
    return (
        _conv("stem", network.width, 7, stride=2),
        *blocks.activated("stem", network.activation),
        MaxPool2d(name="stem.pool", kernel_size=3, stride=2, padding=1),
    )


def _residual(block: Block, network: ResNetSpec, blocks: Blocks) -> tuple[Layer, ...]:
    """activation(body(x) + shortcut(x)).

    The last convolution has its activation behind the sum: a normalization before the activation
    stands at the end of the body (the paper's Figure 2), one after the activation behind that.
    """
    *inner, last = _convolutions(block, network)
    body: list[Layer] = []
    for unit, conv in inner:
        body += [conv, *blocks.activated(unit, network.activation)]
    unit, conv = last
    before, after = blocks.around(unit)
    return (
        Residual(
            name=f"{block.name}.residual",
            body=(*body, conv, *before),
            shortcut=_shortcut(block, network, blocks),
        ),
        Activation(name=f"{block.name}.activation", kind=network.activation),
        *after,
    )


def _convolutions(block: Block, network: ResNetSpec) -> tuple[tuple[str, Conv2d], ...]:
    """The convolutions of a body with the names of their units; the 3×3 one of a bottleneck has the stride."""
    first, second, third = (f"{block.name}.{number}" for number in (1, 2, 3))
    if network.block == "basic":
        return (
            (first, _conv(first, block.channels, 3, block.stride)),
            (second, _conv(second, block.channels, 3)),
        )
    return (
        (first, _conv(first, block.channels, 1)),
        (second, _conv(second, block.channels, 3, block.stride)),
        (third, _conv(third, EXPANSION * block.channels, 1)),
    )


def _shortcut(block: Block, network: ResNetSpec, blocks: Blocks) -> tuple[Layer, ...]:
    """Nothing, the identity, where the shape stays; else a 1×1 convolution with its normalization.

    No activation follows it before the sum, so there its normalization stands with either placement.
    """
    same = block.stride == 1 and block.inputs == _width(block, network)
    if same and network.shortcut == "identity":
        return ()
    unit = f"{block.name}.shortcut"
    before, after = blocks.around(unit)
    return (_conv(unit, _width(block, network), 1, block.stride), *before, *after)


def _width(block: Block, network: ResNetSpec) -> int:
    return block.channels * (EXPANSION if network.block == "bottleneck" else 1)


def _conv(unit: str, channels: int, kernel_size: int, stride: int = 1) -> Conv2d:
    return Conv2d(
        name=f"{unit}.conv", channels=channels, kernel_size=kernel_size, stride=stride, padding=kernel_size // 2
    )
