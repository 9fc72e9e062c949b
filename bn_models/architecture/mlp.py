"""The family `mlp`: fully connected layers as a list."""

from collections.abc import Iterator

from bn_models.architecture.blocks import Blocks
from core.spec.layers import ActivationKind, Dropout, Flatten, Layer, Linear
from core.spec.network import MLPSpec


def mlp_layers(network: MLPSpec, blocks: Blocks, input_shape: tuple[int, ...], outputs: int) -> tuple[Layer, ...]:
    """Flatten (images only), the hidden blocks, and a linear output layer of `outputs` features."""
    layers: list[Layer] = [Flatten(name="flatten")] if len(input_shape) > 1 else []
    layers += hidden_layers(network.hidden, network.activation, network.dropout, blocks)
    return (*layers, Linear(name="output.linear", features=outputs))


def hidden_layers(
    units: tuple[int, ...], activation: ActivationKind, dropout: float, blocks: Blocks
) -> Iterator[Layer]:
    """One block a hidden layer: linear, activation with its normalization, dropout."""
    for number, features in enumerate(units, start=1):
        block = f"hidden{number}"
        yield Linear(name=f"{block}.linear", features=features)
        yield from blocks.activated(block, activation)
        yield from dropped(block, dropout)


def dropped(block: str, probability: float) -> tuple[Dropout, ...]:
    return (Dropout(name=f"{block}.dropout", probability=probability),) if probability > 0.0 else ()
