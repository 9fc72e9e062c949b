"""What a spec can not mean, or must crash at: problems of the task, the data, the size and the normalization."""

from collections.abc import Iterator
from math import prod

from bn_models.architecture.batches import batch_bounds
from bn_models.architecture.blocks import source
from bn_models.architecture.sequential import places
from bn_models.architecture.shapes import Placed, flat, learned
from bn_models.architecture.statistics import kept, options_of, positions, statistical
from core.errors import FieldProblem
from core.spec import layers as words
from core.spec.job import JobSpec
from core.spec.layers import Layer
from core.spec.network import ConvNetSpec, SequentialSpec
from core.spec.normalization import AffineOptions, BatchOptions, LayerNormalization
from core.spec.sequential import NormalizationPlace, WrittenLSTM

Placing = tuple[Placed, ...]

LARGEST_MAPS = 2**33  # values that one layer gives for one batch: 32 GiB in float32, and a step holds several such


def objections(spec: JobSpec, placed: Placing, maximum_parameters: int) -> Iterator[FieldProblem]:
    """Every problem of `spec`; `placed` is empty when there is no such network."""
    yield from _of_the_task(spec)
    yield from _of_the_data(spec, placed)
    yield from _of_the_network(spec, placed)
    yield from _of_the_size(spec, placed, maximum_parameters)
    yield from _of_batch_statistics(spec, placed)
    yield from _of_single_samples(spec, placed)
    yield from _of_gates(spec, placed)
    yield from _of_starts(spec, placed)
    yield from _of_learning(spec, placed)
    yield from _of_zero_last_gamma(spec, placed)


def _of_the_task(spec: JobSpec) -> Iterator[FieldProblem]:
    training, source_name = spec.training, spec.dataset.title
    if spec.dataset.facts.task == "regression":
        if training.label_smoothing > 0.0:
            message = f"smooths class labels, and {source_name} is a regression: set it to 0"
            yield FieldProblem("/training/label_smoothing", "needs_classes", message)
        if training.early_stopping is not None and training.early_stopping.metric == "validation/accuracy":
            message = f"is an accuracy, and {source_name} is a regression: use validation/loss"
            yield FieldProblem("/training/early_stopping/metric", "needs_classes", message)
    if training.early_stopping is not None and spec.dataset.split_sizes()[1] == 0:
        message = (
            f"watches {training.early_stopping.metric}, and there is no validation split: "
            "set dataset.validation_fraction, for instance to 0.1, or leave early_stopping out"
        )
        yield FieldProblem("/training/early_stopping", "needs_validation_split", message)


def _of_the_data(spec: JobSpec, placed: Placing) -> Iterator[FieldProblem]:
    rows, batch_size = spec.dataset.split_sizes()[0], spec.training.batch_size
    if batch_size > rows:
        remedy = f"set at most {rows}" if rows else "hold less out for validation and test"
        message = f"is {batch_size}, and the training split has {rows} rows: {remedy}"
        yield FieldProblem("/training/batch_size", "larger_than_training_split", message)
    samples = spec.population.samples
    if not statistical(placed) or samples is None or spec.population.estimator == "running_average":
        return
    least = 2 if spec.population.estimator == "pooled_sequential" else max(2, batch_size)  # it knows no batches
    if samples < least:
        message = (
            f"is {samples}, and population statistics need at least {least} samples"
            f"{f' (one batch of {batch_size})' if least > 2 else ''}: set at least {least}, or null for all"
        )
        yield FieldProblem("/population/samples", "too_few_samples", message)


def _of_the_network(spec: JobSpec, placed: Placing) -> Iterator[FieldProblem]:
    if isinstance(spec.network, ConvNetSpec) and spec.network.kernel_size % 2 == 0:
        size = spec.network.kernel_size
        message = (
            f"is {size}, and no padding keeps the size of a map under an even kernel: use {size - 1} or {size + 1}"
        )
        yield FieldProblem("/network/kernel_size", "even_kernel", message)
    outputs, data = spec.dataset.facts.outputs, spec.dataset.title
    if placed and placed[-1].output_shape != (outputs,):
        what = f"{outputs} classes" if spec.dataset.facts.task == "classification" else "one value to predict"
        message = (
            f"ends with {placed[-1].layer.name}, which gives {placed[-1].output_shape}, and {data} has {what}: "
            f"let the last layer be linear with features {outputs}, after a flatten or global_average_pool2d layer"
        )
        yield FieldProblem("/network/layers", "wrong_output", message)
    elif placed and sum(item.parameters for item in placed) == 0:
        message = "has no weights, so there is nothing to train: write a linear layer, for instance as the last"
        yield FieldProblem("/network/layers", "nothing_to_train", message)


def _of_the_size(spec: JobSpec, placed: Placing, maximum_parameters: int) -> Iterator[FieldProblem]:
    """Before anything is allocated: parameters, then statistics, then what a single batch would take."""
    parameters, statistics = sum(item.parameters for item in placed), sum(kept(item) for item in flat(placed))
    if parameters > maximum_parameters:
        widest = max(flat(placed), key=lambda item: item.parameters)
        message = (
            f"has {parameters} parameters, and this service allows {maximum_parameters}: "
            f"make it smaller, first layer {widest.layer.name} with its {widest.parameters}"
        )
        yield FieldProblem("/network", "too_many_parameters", message)
    elif statistics > maximum_parameters:
        widest = max(flat(placed), key=kept)
        whitens = isinstance(widest.layer, words.Whitening)
        message = (
            f"makes {statistics} numbers of statistics to keep, and this service allows {maximum_parameters}: "
            f"make it smaller, first layer {widest.layer.name} with its {kept(widest)}"
        )
        where = option_pointer(spec, widest.layer, "group_size") if whitens else "/network"
        yield FieldProblem(where, "too_many_statistics", message)
    else:
        yield from _of_the_maps(spec, placed)


def _of_the_maps(spec: JobSpec, placed: Placing) -> Iterator[FieldProblem]:
    """A batch that no memory holds; below that, what fits is for the device to say."""
    widest = max(flat(placed), key=lambda item: prod(item.output_shape), default=None)
    if widest is None or prod(widest.output_shape) * spec.training.batch_size <= LARGEST_MAPS:
        return
    message = (
        f"has a layer {widest.layer.name} that gives {widest.output_shape} for each of {spec.training.batch_size} "
        f"samples of a batch, more than {LARGEST_MAPS} values together: make it smaller, or training.batch_size"
    )
    yield FieldProblem("/network", "too_large_maps", message)


def _of_batch_statistics(spec: JobSpec, placed: Placing) -> Iterator[FieldProblem]:
    yield from _of_a_batch_of_one(spec, placed)
    batch_size, steps = spec.training.batch_size, spec.training.steps
    for item, options in statistical(placed):
        size = options.virtual_batch_size
        if size is not None and size > batch_size:
            message = (
                f"is {size} for {item.layer.name}, and a batch has {batch_size} samples: "
                f"set at most {batch_size}, or null for the whole batch"
            )
            where = option_pointer(spec, item.layer, "virtual_batch_size")
            yield FieldProblem(where, "larger_than_batch", message)
            break
    for item, options in statistical(placed):
        if options.freeze_last_steps > steps:
            message = (
                f"is {options.freeze_last_steps} for {item.layer.name}, and the training has {steps} steps: "
                f"set at most {steps}"
            )
            where = option_pointer(spec, item.layer, "freeze_last_steps")
            yield FieldProblem(where, "more_than_all_steps", message)
            break


def _of_a_batch_of_one(spec: JobSpec, placed: Placing) -> Iterator[FieldProblem]:
    """Each batch needs two values a channel in each layer of batch statistics: one value has no variance.

    A batch of one is refused for larger maps too: it would not crash, but a sample normalized by
    itself alone is another network than the one that population statistics freeze.
    """
    training = spec.training
    bounds = batch_bounds(spec.dataset.split_sizes()[0], training.batch_size, training.tail)
    smallest = min((end - start for start, end in bounds), default=training.batch_size)
    for item, _ in statistical(placed):
        if smallest * positions(item) < 2:
            where = " of its 1×1 maps" if len(item.input_shape) == 3 else ""
            message = (
                f"is {training.batch_size}; a batch of {smallest} leaves layer {item.layer.name} one value for each "
                f"channel{where}, which has no variance: set at least 2, or batch_norm to false"
            )
            yield FieldProblem("/training/batch_size", "batch_of_one", message)
            return
    if statistical(placed) and training.batch_size == 1:
        message = "is 1, and batch norm needs other samples to normalize with: set at least 2, or batch_norm to false"
        yield FieldProblem("/training/batch_size", "batch_of_one", message)


def _of_single_samples(spec: JobSpec, placed: Placing) -> Iterator[FieldProblem]:
    """A normalization over a single value gives zero, whatever it gets."""
    for item in flat(placed):
        match item.layer:
            case words.InstanceNorm():
                values, over = positions(item), "each map of a sample by itself"
            case words.LayerNorm():
                values, over = prod(item.input_shape), "all values of a sample together"
            case words.GroupNorm():
                values, over = prod(item.input_shape) // item.layer.options.groups, "each group of a sample by itself"
            case _:
                continue
        if values < 2:
            message = (
                f"is {item.layer.options.kind}, which normalizes {over}; of the {item.input_shape} that layer "
                f"{item.layer.name} gets that is one value, and always 0: use another kind there"
            )
            yield FieldProblem(option_pointer(spec, item.layer, "kind"), "one_value", message)
            return


def _of_gates(spec: JobSpec, placed: Placing) -> Iterator[FieldProblem]:
    """An LSTM normalizes before the activations of its gates: another placement would say what is not done."""
    for item in flat(placed):
        options = options_of(item.layer) if isinstance(item.layer, words.LSTM) else None
        if options is not None and options.placement != "before_activation":
            message = (
                f"is {options.placement} for {item.layer.name}, and the LSTM normalizes before the activations of its "
                "gates: set it to before_activation"
            )
            yield FieldProblem(option_pointer(spec, item.layer, "placement"), "not_in_an_lstm", message)


def _of_starts(spec: JobSpec, placed: Placing) -> Iterator[FieldProblem]:
    """A start of a gamma or beta that is not learned."""
    wrong: dict[str, FieldProblem] = {}
    for item in flat(placed):
        options = options_of(item.layer)
        if not isinstance(options, AffineOptions):
            continue
        learns_gamma, learns_beta = learned(options.affine)
        for field, start, learns in (("gamma", 1.0, learns_gamma), ("beta", 0.0, learns_beta)):
            value = getattr(options, f"initial_{field}")
            if value != start and not learns:
                where = option_pointer(spec, item.layer, f"initial_{field}")
                message = (
                    f"is {value}, and {item.layer.name} learns no {field}: set affine to true or {field}, "
                    f"or leave it at {start:g}"
                )
                wrong.setdefault(where, FieldProblem(where, f"no_{field}", message))
    yield from wrong.values()


def _of_learning(spec: JobSpec, placed: Placing) -> Iterator[FieldProblem]:
    """How gamma and beta learn, said where no layer that it is said for has either."""
    idle: dict[str, FieldProblem] = {}
    meant: set[str] = set()
    for item in flat(placed):
        options = options_of(item.layer)
        if not isinstance(options, AffineOptions):
            continue
        for field, default in (("learning_rate_multiplier", 1.0), ("weight_decay", None)):
            value = getattr(options, field)
            where = option_pointer(spec, item.layer, field)
            if any(learned(options.affine)):
                meant.add(where)
            elif value != default:
                message = (
                    f"is {value}, which is of gamma and beta, and {item.layer.name} learns neither: leave it out, or "
                    "set affine to true, gamma or beta"
                )
                idle.setdefault(where, FieldProblem(where, "nothing_learned", message))
    yield from (problem for where, problem in idle.items() if where not in meant)


def _of_zero_last_gamma(spec: JobSpec, placed: Placing) -> Iterator[FieldProblem]:
    """Asked for, and no residual body has a last gamma that it could mean."""
    asking = [item.layer for item in flat(placed) if _asks_for_zero(options_of(item.layer))]
    simple = (item.layer for body in _bodies(placed) for item in flat(body))
    within = [options_of(layer) for layer in simple if not isinstance(layer, words.LSTM)]  # whose gammas scale gates
    meant = [options for options in within if isinstance(options, AffineOptions) and learned(options.affine)[0]]
    if not asking or any(options.zero_last_gamma for options in meant):
        return
    message = (
        "is about the last gamma of residual bodies, and no body of this network has one: set it to false, "
        "use the family resnet, or set affine to true"
    )
    yield FieldProblem(option_pointer(spec, asking[0], "zero_last_gamma"), "no_last_gamma", message)


def _asks_for_zero(options: LayerNormalization | None) -> bool:
    return isinstance(options, AffineOptions) and options.zero_last_gamma


def _bodies(placed: Placing) -> Iterator[Placing]:
    for item in placed:
        if isinstance(item.layer, words.Residual):
            yield item.inside[0]
        for branch in item.inside:
            yield from _bodies(branch)


def option_pointer(spec: JobSpec, layer: Layer, field: str) -> str:
    """Where the body gives, or could give, an option of this layer."""
    if isinstance(spec.network, SequentialSpec):
        pointer, written = places(spec.network.layers)[layer.name]
        if isinstance(written, WrittenLSTM) and isinstance(written.batch_norm, BatchOptions):
            return f"{pointer}/batch_norm/{field}"
        if not isinstance(written, NormalizationPlace) and getattr(written, "options", None) is not None:
            return f"{pointer}/options/{field}"
    return source(spec.batch_norm, layer.name, field)
