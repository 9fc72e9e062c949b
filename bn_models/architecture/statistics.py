"""Which layers normalize by the statistics of a batch, and by how many values."""

from math import prod

from bn_models.architecture.shapes import Placed, flat
from core.spec import layers as words
from core.spec.layers import Layer
from core.spec.normalization import BatchOptions, LayerNormalization, WhiteningOptions

StatisticalOptions = BatchOptions | WhiteningOptions


def options_of(layer: Layer) -> LayerNormalization | None:
    """The options of whatever normalization a simple layer is, or has inside."""
    match layer:
        case words.LSTM():
            return layer.batch_norm
        case (
            words.BatchNorm()
            | words.Whitening()
            | words.LayerNorm()
            | words.GroupNorm()
            | words.InstanceNorm()
            | words.LocalResponseNorm()
        ):
            return layer.options
    return None


def statistical_options(layer: Layer) -> StatisticalOptions | None:
    """The options of a layer that has batch statistics, and so population statistics; None of any other."""
    options = options_of(layer)
    return options if isinstance(options, StatisticalOptions) else None


def statistical(placed: tuple[Placed, ...]) -> tuple[tuple[Placed, StatisticalOptions], ...]:
    """The layers with batch statistics, in order of computation."""
    found = ((item, statistical_options(item.layer)) for item in flat(placed))
    return tuple((item, options) for item, options in found if options is not None)


def positions(item: Placed) -> int:
    """Values a channel that one sample brings: the pixels of a map; one for a vector, or a step of a sequence."""
    return prod(item.input_shape[1:]) if len(item.input_shape) == 3 else 1


def kept(item: Placed) -> int:
    """Numbers that a layer keeps as statistics: mean and variance of each channel, or covariances with its group."""
    match item.layer:
        case words.LSTM():
            return 0 if item.layer.batch_norm is None else item.input_shape[0] * 2 * (2 * 4 + 1) * item.layer.units
        case words.Whitening():
            channels = item.input_shape[0]
            return channels * (1 + min(item.layer.options.group_size, channels))
        case words.BatchNorm():
            return 2 * item.input_shape[0]
    return 0


def ghost_size(placed: tuple[Placed, ...]) -> int | None:
    """The smallest virtual batch of any layer."""
    sizes = [options.virtual_batch_size for _, options in statistical(placed) if options.virtual_batch_size is not None]
    return min(sizes, default=None)
