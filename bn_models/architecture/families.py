"""From a network spec of any family to its one list of layers."""

from bn_models.architecture.blocks import Blocks
from bn_models.architecture.convnet import convnet_layers
from bn_models.architecture.inception import inception_layers
from bn_models.architecture.mlp import mlp_layers
from bn_models.architecture.recurrent import recurrent_layers
from bn_models.architecture.resnet import resnet_layers
from bn_models.architecture.resolution import resolved
from bn_models.architecture.sequential import sequential_layers
from bn_models.architecture.vgg import vgg_layers
from core.spec import network as spec
from core.spec.layers import Layer
from core.spec.network import NetworkSpec
from core.spec.normalization import NormalizationSpec


def layers_of(
    network: NetworkSpec, batch_norm: NormalizationSpec | None, input_shape: tuple[int, ...], outputs: int
) -> tuple[Layer, ...]:
    """The layers of `network` for inputs of `input_shape`: (columns,), (C, H, W) or (T, F), without the batch axis.

    `batch_norm` None: the same list without its normalizations, and with the biases they made redundant.
    Every option of every layer is decided. Raises SpecInvalid when an override of `batch_norm` fits no
    layer, or has a field that the layer's kind has not.
    """
    blocks = Blocks(batch_norm)
    layers = _unresolved(network, blocks, input_shape, outputs)
    blocks.finish()
    return resolved(layers)


def _unresolved(network: NetworkSpec, blocks: Blocks, input_shape: tuple[int, ...], outputs: int) -> tuple[Layer, ...]:
    match network:
        case spec.MLPSpec():
            return mlp_layers(network, blocks, input_shape, outputs)
        case spec.ConvNetSpec():
            return convnet_layers(network, blocks, outputs)
        case spec.VGGSpec():
            return vgg_layers(network, blocks, input_shape, outputs)
        case spec.ResNetSpec():
            return resnet_layers(network, blocks, outputs)
        case spec.InceptionSpec():
            return inception_layers(network, blocks, outputs)
        case spec.RecurrentSpec():
            return recurrent_layers(network, blocks, input_shape, outputs)
        case spec.SequentialSpec():
            return sequential_layers(network, blocks)
