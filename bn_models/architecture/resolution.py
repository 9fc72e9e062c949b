"""What no layer of a list can decide alone: the biases that a normalization behind them cancels."""

from core.spec import layers as spec
from core.spec.layers import Layer


def resolved(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The list with every `bias` true or false."""
    return tuple(
        _resolved(layer, layers[index + 1] if index + 1 < len(layers) else None) for index, layer in enumerate(layers)
    )


def _resolved(layer: Layer, following: Layer | None) -> Layer:
    match layer:
        case spec.Linear() | spec.Conv2d() if layer.bias is None:
            return layer.model_copy(update={"bias": not _cancels_bias(following, layer)})
        case spec.Residual():
            return layer.model_copy(update={"body": resolved(layer.body), "shortcut": resolved(layer.shortcut)})
        case spec.Parallel():
            return layer.model_copy(update={"branches": tuple(resolved(branch) for branch in layer.branches)})
    return layer


def _cancels_bias(following: Layer | None, layer: spec.Linear | spec.Conv2d) -> bool:
    """Whether what follows at once subtracts the mean of each channel, and so the channel's bias with it.

    Layer and group norm subtract one mean from several channels: of the biases only the mean of the
    group goes, the differences between its channels stay, so the bias is worth its parameters there.
    With one channel a group, group norm is instance norm, which cancels it.
    """
    match following:
        case spec.BatchNorm() | spec.Whitening() | spec.InstanceNorm():
            return True
        case spec.GroupNorm():
            return following.options.groups == (layer.channels if isinstance(layer, spec.Conv2d) else layer.features)
    return False
