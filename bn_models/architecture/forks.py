"""What a checkpoint of one spec can not be gone on from with another."""

from collections.abc import Iterator
from typing import Any

from bn_models.architecture.families import layers_of
from bn_models.architecture.shapes import Placed, flat, place
from bn_models.architecture.statistics import statistical, statistical_options
from core.errors import FieldProblem
from core.spec.job import JobSpec
from core.spec.optimization import SGDSpec

SPLIT = ("split_seed", "validation_fraction", "test_fraction")


def unfit(source: JobSpec, fork: JobSpec, step: int) -> Iterator[FieldProblem]:
    """Why `fork` can not go on from a checkpoint that a job of `source` wrote after `step`; pointers into `fork`.

    Both are admitted. Learning rates, schedules, batch sizes, orders, augmentation, regularization and other data of
    the same shape fit; weights, their optimizer's state and the split must be what they were.
    """
    yield from _of_the_steps(source, fork, step)
    yield from _of_the_weights(source, fork)
    yield from _of_the_optimizer(source, fork)
    if source.dataset.source == fork.dataset.source:
        for field in SPLIT:
            was, is_now = getattr(source.dataset, field), getattr(fork.dataset, field)
            if was != is_now:
                message = (
                    f"is {is_now}, and the checkpoint was trained with {was}: rows that were trained on would be "
                    f"tested on; leave it at {was}"
                )
                yield FieldProblem(f"/dataset/{field}", "other_split", message)


def _of_the_steps(source: JobSpec, fork: JobSpec, step: int) -> Iterator[FieldProblem]:
    if fork.training.steps <= step:
        message = f"is {fork.training.steps}, and the checkpoint is of step {step}: set at least {step + 1}"
        yield FieldProblem("/training/steps", "nothing_left_to_train", message)
    frozen = max((options.freeze_last_steps for _, options in statistical(_placed(source))), default=0)
    if frozen and step > source.training.steps - frozen:
        message = (
            f"the checkpoint of step {step} is from the last {frozen} steps, in which batch norm was frozen "
            "(freeze_last_steps): take an earlier checkpoint"
        )
        yield FieldProblem("/checkpoint", "frozen", message)


def _of_the_weights(source: JobSpec, fork: JobSpec) -> Iterator[FieldProblem]:
    before, after = _weights(source), _weights(fork)
    if before == after:
        return
    parts = ("network", "batch_norm", "dataset")
    part = next((name for name in parts if getattr(source, name) != getattr(fork, name)), "network")
    differing = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    where = f"; first of them {differing[0]}" if differing else ", in their order"
    message = (
        f"makes {len(differing)} layers with other weights than the checkpoint has{where}: leave {part} as it was, "
        "or submit a job of its own"
    )
    yield FieldProblem(f"/{part}", "other_weights", message)


def _of_the_optimizer(source: JobSpec, fork: JobSpec) -> Iterator[FieldProblem]:
    before, after = source.optimizer, fork.optimizer
    if isinstance(before, SGDSpec) != isinstance(after, SGDSpec):
        message = f"is {after.kind}, and the checkpoint has the state of {before.kind}: leave it at {before.kind}"
        yield FieldProblem("/optimizer/kind", "other_optimizer", message)
    elif isinstance(before, SGDSpec) and isinstance(after, SGDSpec) and before.momentum and not after.momentum:
        message = f"is 0, and the checkpoint has momenta (momentum {before.momentum:g}): set it above 0, however little"
        yield FieldProblem("/optimizer/momentum", "other_optimizer", message)


def _placed(spec: JobSpec) -> tuple[Placed, ...]:
    facts = spec.dataset.facts
    return place(layers_of(spec.network, spec.batch_norm, facts.input_shape, facts.outputs), facts.input_shape)


def _weights(spec: JobSpec) -> dict[str, Any]:
    """By layer, what the names and shapes of its tensors follow from."""
    return {
        item.layer.name: (type(item.layer), item.input_shape, item.output_shape, item.parameters, _moments(item))
        for item in flat(_placed(spec))
        if item.parameters or statistical_options(item.layer) is not None
    }


def _moments(item: Placed) -> Any:
    """The shape of what a layer of batch statistics stores beside its weights."""
    options = statistical_options(item.layer)
    return None if options is None else (options.kind, getattr(options, "group_size", None), options.affine)
