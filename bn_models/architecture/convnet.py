"""The family `convnet`: convolution stages, then fully connected layers, as a list."""

from bn_models.architecture.mlp import activated, has_bias, hidden_layers
from core.spec.layers import Conv2d, Flatten, GlobalAveragePool2d, Layer, Linear, MaxPool2d
from core.spec.network import ConvNetSpec
from core.spec.normalization import BatchNormSpec


def convnet_layers(network: ConvNetSpec, batch_norm: BatchNormSpec | None, outputs: int) -> tuple[Layer, ...]:
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
                bias=has_bias(batch_norm),
            )
        )
        layers += activated(stage, network.activation, batch_norm)
        if number % network.pool_every == 0:
            layers.append(MaxPool2d(name=f"{stage}.pool", kernel_size=2, stride=2))
    if network.head == "global_average":
        layers.append(GlobalAveragePool2d(name="head.global_average"))
    else:
        layers.append(Flatten(name="head.flatten"))
    layers += hidden_layers(network.hidden, network.activation, network.dropout, batch_norm)
    return (*layers, Linear(name="output.linear", features=outputs))
