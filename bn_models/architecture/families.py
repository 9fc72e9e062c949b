"""From a network spec of any family to its one list of layers."""

from bn_models.architecture.convnet import convnet_layers
from bn_models.architecture.mlp import mlp_layers
from core.spec.layers import Layer
from core.spec.network import ConvNetSpec, NetworkSpec
from core.spec.normalization import BatchNormSpec


def layers_of(
    network: NetworkSpec, batch_norm: BatchNormSpec | None, input_shape: tuple[int, ...], outputs: int
) -> tuple[Layer, ...]:
    """The layers of `network` for inputs of `input_shape`: (columns,) or (C, H, W), without the batch axis.

    `batch_norm` None: the same list without its batch norm layers, and with the biases they made redundant.
    """
    if isinstance(network, ConvNetSpec):
        return convnet_layers(network, batch_norm, outputs)
    return mlp_layers(network, batch_norm, input_shape, outputs)
