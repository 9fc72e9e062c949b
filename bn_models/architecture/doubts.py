"""What a spec may mean, and is seldom wise: warnings of its plan."""

from collections.abc import Iterator

from bn_models.architecture.batches import batch_bounds
from bn_models.architecture.sequential import takes_batch_norm
from bn_models.architecture.shapes import Placed, learned
from bn_models.architecture.statistics import positions, statistical, statistical_options
from core.spec import layers as words
from core.spec.job import JobSpec
from core.spec.layers import Layer
from core.spec.network import SequentialSpec
from core.spec.normalization import WhiteningOptions
from core.spec.order import CLASS_ORDERS

SMALL_BATCH = 8  # below it, batch statistics are noisy enough to be worth a warning
FORGOTTEN_START = 5.0  # updates × momentum after which a running average has forgotten its start (e^-5)
SATURATED_GAMMA = 1.0  # of an LSTM: a sum of two parts of deviation 1 drives its gates to their ends
FEW_STEPS = 100  # a cumulative average of fewer is mostly of weights that are gone


def doubts(spec: JobSpec, layers: tuple[Layer, ...], placed: tuple[Placed, ...]) -> Iterator[str]:
    """Warnings, in plain words with their remedies."""
    network = spec.network
    if spec.batch_norm is not None and isinstance(network, SequentialSpec) and not takes_batch_norm(network):
        yield (
            "batch_norm is set, and no layer of the list takes it: write a layer normalization where it "
            "should stand, or set batch_norm to false"
        )
    warmup, steps = spec.schedule.warmup_steps, spec.training.steps
    if warmup > steps:
        yield (
            f"schedule.warmup_steps is {warmup}, and the training has {steps} steps: the learning rate ends at "
            f"{steps / warmup:.3g} of optimizer.learning_rate; set it below {steps}"
        )
    if not statistical(placed):
        return
    if spec.training.order.kind in CLASS_ORDERS:
        yield (
            f"training.order {spec.training.order.kind} makes batches of one class, whose statistics are not those of "
            "the data: shuffle, unless that is what is to be seen"
        )
    yield from _of_small_batches(spec)
    yield from _of_whitening(spec, placed)
    yield from _of_gates(placed)
    yield from _of_running_averages(spec, placed)
    dropout, _ = _dropout_before_statistics(layers, None)
    if dropout is not None:
        yield (
            f"{dropout} comes before a batch norm: dropout shifts the variance between training and "
            "inference; set dropout to 0, or batch_norm to false"
        )
    rows = spec.dataset.split_sizes()[0]
    if spec.population.samples is not None and spec.population.samples > rows:
        yield f"population.samples is {spec.population.samples}, and the training split has {rows} rows: all are used"


def _of_small_batches(spec: JobSpec) -> Iterator[str]:
    if spec.training.batch_size < SMALL_BATCH:
        yield (
            f"training.batch_size is {spec.training.batch_size}: batch statistics of fewer than {SMALL_BATCH} samples "
            "are noisy, and train and eval mode may differ; a larger batch helps"
        )


def _of_whitening(spec: JobSpec, placed: tuple[Placed, ...]) -> Iterator[str]:
    """A covariance of no more samples than channels has no full rank: eps alone keeps it from being singular."""
    training = spec.training
    bounds = batch_bounds(spec.dataset.split_sizes()[0], training.batch_size, training.tail)
    smallest = min((end - start for start, end in bounds), default=training.batch_size)
    for item, options in statistical(placed):
        if not isinstance(options, WhiteningOptions):
            continue
        samples = min(smallest, options.virtual_batch_size or smallest) * positions(item)
        channels = min(options.group_size, item.input_shape[0])
        if samples <= channels:
            yield (
                f"{item.layer.name} whitens {channels} channels together by {samples} samples of a batch, which leaves "
                f"their covariance singular but for eps: set group_size below {samples}, or a larger batch"
            )
            return


def _of_gates(placed: tuple[Placed, ...]) -> Iterator[str]:
    for item, options in statistical(placed):
        start = options.initial_gamma if learned(options.affine)[0] else 1.0
        if isinstance(item.layer, words.LSTM) and start >= SATURATED_GAMMA:
            yield (
                f"the gammas of {item.layer.name} start at {start:g}, where its gates saturate and gradients vanish "
                "over time (Cooijmans et al. 2016, section 4): learn gamma, and set initial_gamma to 0.1"
            )
            return


def _of_running_averages(spec: JobSpec, placed: tuple[Placed, ...]) -> Iterator[str]:
    steps = spec.training.steps
    momenta = [options.momentum for _, options in statistical(placed)]
    slowest = min((momentum for momentum in momenta if momentum is not None), default=None)
    if slowest is not None and steps * slowest < FORGOTTEN_START:
        yield (
            f"{steps} steps at batch_norm.momentum {slowest} leave the running average near "
            "its start, mean 0 and variance 1: train longer or raise momentum; pooled population statistics are exact"
        )
    if None in momenta and steps < FEW_STEPS:
        yield (
            f"batch_norm.momentum null averages all of only {steps} steps alike, the first ones, of weights long "
            "changed, too: train longer or set a momentum; pooled population statistics are exact"
        )


def _dropout_before_statistics(layers: tuple[Layer, ...], dropped: str | None) -> tuple[str | None, str | None]:
    """(the dropout that comes before a layer of batch statistics, the first dropout met so far)."""
    for layer in layers:
        if isinstance(layer, words.Dropout):
            dropped = dropped or layer.name
        elif dropped is not None and statistical_options(layer) is not None:
            return dropped, dropped
        else:
            ends = [_dropout_before_statistics(branch, dropped) for branch in _branches(layer)]
            found = next((found for found, _ in ends if found is not None), None)
            if found is not None:
                return found, dropped
            dropped = dropped or next((end for _, end in ends if end is not None), None)
    return None, dropped


def _branches(layer: Layer) -> tuple[tuple[Layer, ...], ...]:
    match layer:
        case words.Residual():
            return layer.body, layer.shortcut
        case words.Parallel():
            return layer.branches
    return ()
