"""What may be trained: a spec that must crash, or can not mean what it says, is refused before it is queued."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from bn_models.architecture.batches import batch_bounds
from bn_models.architecture.families import layers_of
from bn_models.architecture.shapes import Placed, place
from core.errors import FieldProblem, SpecInvalid
from core.spec.job import JobSpec
from core.spec.layers import BatchNorm, Dropout, Layer
from core.spec.network import ConvNetSpec

SMALL_BATCH = 8  # below it, batch statistics are noisy enough to be worth a warning
FORGOTTEN_START = 5.0  # updates × momentum after which a running average has forgotten its start (e^-5)


@dataclass(frozen=True)
class Plan:
    """What an admitted spec will run. `flops_per_step`: forward and backward, 3 × forward × batch size."""

    layers: tuple[Layer, ...]
    placed: tuple[Placed, ...]
    parameters: int
    flops_per_step: int
    steps_per_epoch: int
    batches: str
    warnings: tuple[str, ...]


def admit(spec: JobSpec, maximum_parameters: int, maximum_steps: int) -> Plan:
    """The plan of `spec`. Raises SpecInvalid with every problem found, each with its field and remedy."""
    facts = spec.dataset.facts
    problems = [*_problems_of_the_network(spec), *_problems_of_the_task(spec), *_problems_of_the_data(spec)]
    if spec.training.steps > maximum_steps:
        message = f"is {spec.training.steps}, and this service allows {maximum_steps}: set at most that"
        problems.append(FieldProblem("/training/steps", "too_many_steps", message))
    layers = layers_of(spec.network, spec.batch_norm, facts.input_shape, facts.outputs)
    placed: tuple[Placed, ...] = ()
    if not any(problem.pointer.startswith("/network") for problem in problems):
        try:
            placed = place(layers, facts.input_shape)
        except SpecInvalid as error:
            problems += [replace(problem, pointer="/network/pool_every") for problem in error.problems]
    problems += [*_problems_of_size(placed, maximum_parameters), *_problems_of_batch_norm(spec, placed)]
    if problems:
        raise SpecInvalid(tuple(problems))
    return _plan(spec, layers, placed)


def _plan(spec: JobSpec, layers: tuple[Layer, ...], placed: tuple[Placed, ...]) -> Plan:
    training = spec.training
    rows = spec.dataset.split_sizes()[0]
    bounds = batch_bounds(rows, training.batch_size, training.tail)
    return Plan(
        layers=layers,
        placed=placed,
        parameters=sum(item.parameters for item in placed),
        flops_per_step=3 * training.batch_size * sum(item.flops for item in placed),
        steps_per_epoch=len(bounds),
        batches=_describe_batches(bounds, rows, training.batch_size),
        warnings=tuple(_warnings(spec, layers, rows)),
    )


def _describe_batches(bounds: tuple[tuple[int, int], ...], rows: int, batch_size: int) -> str:
    start, end = bounds[-1]
    if end < rows:
        return f"{_count(len(bounds), batch_size)}; {rows - end} of {rows} samples are left out of each epoch"
    if end - start == batch_size:
        return _count(len(bounds), batch_size)
    return f"{_count(len(bounds) - 1, batch_size)} and a last one of {end - start}"


def _count(batches: int, batch_size: int) -> str:
    return f"{batches} batch{'' if batches == 1 else 'es'} of {batch_size}"


def _problems_of_the_network(spec: JobSpec) -> Iterator[FieldProblem]:
    if not isinstance(spec.network, ConvNetSpec):
        return
    if spec.dataset.facts.kind == "table":
        yield FieldProblem(
            "/network/family",
            "needs_images",
            f"a convnet needs images, and {spec.dataset.source} is a table: use the family mlp, or an image source",
        )
    if spec.network.kernel_size % 2 == 0:
        size = spec.network.kernel_size
        yield FieldProblem(
            "/network/kernel_size",
            "even_kernel",
            f"is {size}, and no padding keeps the size of a map under an even kernel: use {size - 1} or {size + 1}",
        )


def _problems_of_the_task(spec: JobSpec) -> Iterator[FieldProblem]:
    training, source = spec.training, spec.dataset.source
    if spec.dataset.facts.task == "regression":
        if training.label_smoothing > 0.0:
            message = f"smooths class labels, and {source} is a regression: set it to 0"
            yield FieldProblem("/training/label_smoothing", "needs_classes", message)
        if training.early_stopping is not None and training.early_stopping.metric == "validation/accuracy":
            message = f"is an accuracy, and {source} is a regression: use validation/loss"
            yield FieldProblem("/training/early_stopping/metric", "needs_classes", message)
    if training.early_stopping is not None and spec.dataset.split_sizes()[1] == 0:
        message = (
            f"watches {training.early_stopping.metric}, and there is no validation split: "
            "set dataset.validation_fraction, for instance to 0.1, or leave early_stopping out"
        )
        yield FieldProblem("/training/early_stopping", "needs_validation_split", message)


def _problems_of_the_data(spec: JobSpec) -> Iterator[FieldProblem]:
    rows, batch_size = spec.dataset.split_sizes()[0], spec.training.batch_size
    if batch_size > rows:
        remedy = f"set at most {rows}" if rows else "hold less out for validation and test"
        message = f"is {batch_size}, and the training split has {rows} rows: {remedy}"
        yield FieldProblem("/training/batch_size", "larger_than_training_split", message)
    samples = spec.population.samples
    if spec.batch_norm is None or samples is None or spec.population.estimator == "running_average":
        return
    least = max(2, batch_size)
    if samples < least:
        message = (
            f"is {samples}, and population statistics need at least {least} samples "
            f"(two, and one batch of {batch_size}): set at least {least}, or null for all"
        )
        yield FieldProblem("/population/samples", "too_few_samples", message)


def _problems_of_size(placed: tuple[Placed, ...], maximum_parameters: int) -> Iterator[FieldProblem]:
    parameters = sum(item.parameters for item in placed)
    if parameters > maximum_parameters:
        widest = max(placed, key=lambda item: item.parameters)
        message = (
            f"has {parameters} parameters, and this service allows {maximum_parameters}: "
            f"make it smaller, first layer {widest.layer.name} with its {widest.parameters}"
        )
        yield FieldProblem("/network", "too_many_parameters", message)


def _problems_of_batch_norm(spec: JobSpec, placed: tuple[Placed, ...]) -> Iterator[FieldProblem]:
    """Each batch needs two values a channel in each batch norm layer: one value has no variance.

    A batch of one is refused for larger maps too: it would not crash, but a sample normalized by
    itself alone is another network than the one that population statistics freeze.
    """
    training = spec.training
    bounds = batch_bounds(spec.dataset.split_sizes()[0], training.batch_size, training.tail)
    smallest = min((end - start for start, end in bounds), default=training.batch_size)
    for item in placed:
        spatial = item.input_shape[1:]
        if isinstance(item.layer, BatchNorm) and smallest * prod(spatial) < 2:
            where = " of its 1×1 maps" if spatial else ""
            message = (
                f"is {training.batch_size}; a batch of {smallest} leaves layer {item.layer.name} one value for each "
                f"channel{where}, which has no variance: set at least 2, or batch_norm to false"
            )
            yield FieldProblem("/training/batch_size", "batch_of_one", message)
            return
    if spec.batch_norm is not None and training.batch_size == 1:
        message = "is 1, and batch norm needs other samples to normalize with: set at least 2, or batch_norm to false"
        yield FieldProblem("/training/batch_size", "batch_of_one", message)


def _warnings(spec: JobSpec, layers: tuple[Layer, ...], rows: int) -> Iterator[str]:
    training, batch_norm = spec.training, spec.batch_norm
    if batch_norm is None:
        return
    if training.batch_size < SMALL_BATCH:
        yield (
            f"training.batch_size is {training.batch_size}: batch statistics of fewer than {SMALL_BATCH} samples are "
            "noisy, and train and eval mode may differ; a larger batch helps"
        )
    momentum = getattr(batch_norm, "momentum", None)
    if momentum is not None and training.steps * momentum < FORGOTTEN_START:
        yield (
            f"{training.steps} steps at batch_norm.momentum {momentum} leave the running average near "
            "its start, mean 0 and variance 1: train longer or raise momentum; pooled population statistics are exact"
        )
    dropped = next((index for index, layer in enumerate(layers) if isinstance(layer, Dropout)), len(layers))
    if any(isinstance(layer, BatchNorm) for layer in layers[dropped:]):
        yield (
            f"{layers[dropped].name} comes before a batch norm: dropout shifts the variance between training and "
            "inference; set network.dropout to 0, or batch_norm to false"
        )
    if spec.population.samples is not None and spec.population.samples > rows:
        yield f"population.samples is {spec.population.samples}, and the training split has {rows} rows: all are used"
