"""What a spec can not ask of its data: problems of the task, the rows, their order and their augmentation."""

from collections.abc import Iterator

from core.errors import FieldProblem
from core.spec.job import JobSpec
from core.spec.order import CLASS_ORDERS, ByShard


def of_the_data(spec: JobSpec, has_statistics: bool) -> Iterator[FieldProblem]:
    """`has_statistics`: whether a layer of the network has population statistics."""
    yield from _of_the_task(spec)
    yield from _of_the_rows(spec, has_statistics)
    yield from _of_the_order(spec)
    yield from _of_the_augmentation(spec)


def _of_the_task(spec: JobSpec) -> Iterator[FieldProblem]:
    training, source_name = spec.training, spec.dataset.title
    if spec.dataset.facts.task == "regression":
        if training.label_smoothing > 0.0:
            message = f"smooths class labels, and {source_name} is a regression: set it to 0"
            yield FieldProblem("/training/label_smoothing", "needs_classes", message)
        if training.label_noise > 0.0:
            message = f"replaces class labels, and {source_name} is a regression: set it to 0"
            yield FieldProblem("/training/label_noise", "needs_classes", message)
        if training.order.kind in CLASS_ORDERS:
            message = f"is {training.order.kind}, and {source_name} has no classes: use shuffled or by_shard"
            yield FieldProblem("/training/order/kind", "needs_classes", message)
        if training.early_stopping is not None and training.early_stopping.metric == "validation/accuracy":
            message = f"is an accuracy, and {source_name} is a regression: use validation/loss"
            yield FieldProblem("/training/early_stopping/metric", "needs_classes", message)
    if training.early_stopping is not None and spec.dataset.split_sizes()[1] == 0:
        message = (
            f"watches {training.early_stopping.metric}, and there is no validation split: "
            "set dataset.validation_fraction, for instance to 0.1, or leave early_stopping out"
        )
        yield FieldProblem("/training/early_stopping", "needs_validation_split", message)


def _of_the_rows(spec: JobSpec, has_statistics: bool) -> Iterator[FieldProblem]:
    rows, batch_size = spec.dataset.split_sizes()[0], spec.training.batch_size
    if batch_size > rows:
        remedy = f"set at most {rows}" if rows else "hold less out for validation and test"
        message = f"is {batch_size}, and the training split has {rows} rows: {remedy}"
        yield FieldProblem("/training/batch_size", "larger_than_training_split", message)
    samples = spec.population.samples
    if not has_statistics or samples is None:
        return
    if spec.population.estimator == "running_average":
        message = (
            f"is {samples}, and the estimator running_average is what training kept, which no samples are measured "
            "for: leave it out, or use pooled, pooled_sequential or algorithm_2"
        )
        yield FieldProblem("/population/samples", "nothing_measured", message)
        return
    least = 2 if spec.population.estimator == "pooled_sequential" else max(2, batch_size)  # it knows no batches
    if samples < least:
        message = (
            f"is {samples}, and population statistics need at least {least} samples"
            f"{f' (one batch of {batch_size})' if least > 2 else ''}: set at least {least}, or null for all"
        )
        yield FieldProblem("/population/samples", "too_few_samples", message)


def _of_the_order(spec: JobSpec) -> Iterator[FieldProblem]:
    order, rows = spec.training.order, spec.dataset.split_sizes()[0]
    if isinstance(order, ByShard) and order.shards > rows:
        message = f"is {order.shards}, and the training split has {rows} rows: set at most {rows}"
        yield FieldProblem("/training/order/shards", "more_than_rows", message)


def _of_the_augmentation(spec: JobSpec) -> Iterator[FieldProblem]:
    augmentation, shape = spec.training.augmentation, spec.dataset.facts.input_shape
    if augmentation is None:
        return
    if len(shape) != 3:
        message = f"changes images, and {spec.dataset.source} has none: set it to null"
        yield FieldProblem("/training/augmentation", "needs_images", message)
        return
    side = min(shape[1:])
    for field in ("crop", "cutout"):
        pixels = getattr(augmentation, field)
        if pixels is not None and pixels >= side:
            message = (
                f"is {pixels} pixels, and images of {spec.dataset.source} have {side} a side: set at most {side - 1}"
            )
            yield FieldProblem(f"/training/augmentation/{field}", "larger_than_image", message)
