"""The family `mlp`: fully connected layers as a list."""

from collections.abc import Iterator

from core.spec.layers import Activation, ActivationKind, BatchNorm, Dropout, Flatten, Layer, Linear
from core.spec.network import MLPSpec
from core.spec.normalization import BatchNormSpec


def mlp_layers(
    network: MLPSpec, batch_norm: BatchNormSpec | None, input_shape: tuple[int, ...], outputs: int
) -> tuple[Layer, ...]:
    """Flatten (images only), the hidden blocks, and a linear output layer of `outputs` features."""
    layers: list[Layer] = [Flatten(name="flatten")] if len(input_shape) > 1 else []
    layers += hidden_layers(network.hidden, network.activation, network.dropout, batch_norm)
    return (*layers, Linear(name="output.linear", features=outputs))


def hidden_layers(
    units: tuple[int, ...], activation: ActivationKind, dropout: float, batch_norm: BatchNormSpec | None
) -> Iterator[Layer]:
    """One block a hidden layer: linear, activation with its batch norm, dropout."""
    for number, features in enumerate(units, start=1):
        block = f"hidden{number}"
        yield Linear(name=f"{block}.linear", features=features, bias=has_bias(batch_norm))
        yield from activated(block, activation, batch_norm)
        if dropout > 0.0:
            yield Dropout(name=f"{block}.dropout", probability=dropout)


def activated(block: str, activation: ActivationKind, batch_norm: BatchNormSpec | None) -> tuple[Layer, ...]:
    """The activation of a block, with batch norm before it, after it, or not at all."""
    nonlinearity = Activation(name=f"{block}.activation", kind=activation)
    if batch_norm is None:
        return (nonlinearity,)
    normalization = BatchNorm(name=f"{block}.batch_norm", options=batch_norm)
    if batch_norm.placement == "before_activation":
        return (normalization, nonlinearity)
    return (nonlinearity, normalization)


def has_bias(batch_norm: BatchNormSpec | None) -> bool:
    """Subtracting the batch mean cancels a bias right before batch norm, so there it is left out."""
    return batch_norm is None or batch_norm.placement == "after_activation"
