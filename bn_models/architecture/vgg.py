"""The family `vgg` (Simonyan & Zisserman 2014, Table 1) as a list."""

from bn_models.architecture.blocks import Blocks
from bn_models.architecture.convnet import head
from bn_models.architecture.mlp import hidden_layers
from core.spec.layers import Conv2d, Layer, Linear, MaxPool2d
from core.spec.network import VGGSpec

# Convolutions of the five stages: the columns A, B, D and E of Table 1.
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
WIDTHS = (1, 2, 4, 8, 8)  # times `width`: conv3-64, conv3-128, conv3-256, conv3-512, conv3-512


def vgg_layers(network: VGGSpec, blocks: Blocks, input_shape: tuple[int, ...], outputs: int) -> tuple[Layer, ...]:
    """Five stages of 3×3 convolutions, each with a 2×2 pooling after it; the hidden layers; the output layer.

    A pooling is left out where the map is one pixel high or wide already, so that small images pass too.
    """
    layers: list[Layer] = []
    size = min(input_shape[1:], default=1)
    for stage, (count, factor) in enumerate(zip(CONVOLUTIONS[network.depth], WIDTHS, strict=True), start=1):
        for number in range(1, count + 1):
            block = f"stage{stage}.{number}"
            layers.append(Conv2d(name=f"{block}.conv", channels=factor * network.width, kernel_size=3, padding=1))
            layers += blocks.activated(block, network.activation)
        if size >= 2:
            layers.append(MaxPool2d(name=f"stage{stage}.pool", kernel_size=2, stride=2))
            size //= 2
    layers.append(head(network.head))
    layers += hidden_layers(network.hidden, network.activation, network.dropout, blocks)
    return (*layers, Linear(name="output.linear", features=outputs))
