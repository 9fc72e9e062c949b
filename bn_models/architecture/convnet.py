"""The family `convnet`: convolution stages, then fully connected layers, as a list."""

from typing import Literal

from bn_models.architecture.blocks import Blocks
from bn_models.architecture.mlp import hidden_layers
from core.spec.layers import Conv2d, Flatten, GlobalAveragePool2d, Layer, Linear, MaxPool2d
from core.spec.network import ConvNetSpec


def convnet_layers(network: ConvNetSpec, blocks: Blocks, outputs: int) -> tuple[Layer, ...]:
    """Stages of convolution (size kept by padding), activation and pooling; the head; the output layer."""
    layers: list[Layer] = []
    for number, channels in enumerate(network.channels, start=1):
        stage = f"stage{number}"
        layers.append(
            Conv2d(
                name=f"{stage}.conv",
                channels=channels,
                kernel_size=network.kernel_size,
                padding=network.kernel_size // 2,
            )
        )
        layers += blocks.activated(stage, network.activation)
        if number % network.pool_every == 0:
            layers.append(MaxPool2d(name=f"{stage}.pool", kernel_size=2, stride=2))
    layers.append(head(network.head))
    layers += hidden_layers(network.hidden, network.activation, network.dropout, blocks)
    return (*layers, Linear(name="output.linear", features=outputs))


def head(kind: Literal["flatten", "global_average"]) -> Layer:
    """How feature maps become a vector."""
    return GlobalAveragePool2d(name="head.global_average") if kind == "global_average" else Flatten(name="head.flatten")
