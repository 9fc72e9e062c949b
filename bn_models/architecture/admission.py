"""What may be trained: a spec that must crash, or can not mean what it says, is refused before it is queued."""

from dataclasses import dataclass, replace

from bn_models.architecture.batches import batch_bounds, ghost_sizes
from bn_models.architecture.blocks import source
from bn_models.architecture.doubts import doubts
from bn_models.architecture.families import layers_of
from bn_models.architecture.objections import objections
from bn_models.architecture.observation import unobservable, unwatchable
from bn_models.architecture.sequential import places
from bn_models.architecture.shapes import LayerDoesNotFit, Placed, place
from bn_models.architecture.statistics import ghost_size
from core.errors import FieldProblem, SpecInvalid
from core.spec import layers as words
from core.spec.job import JobSpec
from core.spec.layers import Layer
from core.spec.network import ConvNetSpec, SequentialSpec


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
    problems: list[FieldProblem] = []
    if spec.training.steps > maximum_steps:
        message = f"is {spec.training.steps}, and this service allows {maximum_steps}: set at most that"
        problems.append(FieldProblem("/training/steps", "too_many_steps", message))
    layers, placed = _laid_out(spec, problems)
    problems += objections(spec, placed, maximum_parameters)
    problems += unobservable(spec, placed)
    problems += unwatchable(spec, placed)
    if problems:
        raise SpecInvalid(tuple(problems))
    return _plan(spec, layers, placed)


def _laid_out(spec: JobSpec, problems: list[FieldProblem]) -> tuple[tuple[Layer, ...], tuple[Placed, ...]]:
    """The layers in their places; nothing, and its problem, where there is no such network."""
    facts = spec.dataset.facts
    unfit = _needs_other_data(spec)
    if unfit is not None:
        problems.append(unfit)
        return (), ()
    try:
        layers = layers_of(spec.network, spec.batch_norm, facts.input_shape, facts.outputs)
        return layers, place(layers, facts.input_shape)
    except LayerDoesNotFit as error:
        problems += [replace(problem, pointer=_where(error.layer, spec)) for problem in error.problems]
    except SpecInvalid as error:
        problems += error.problems
    return (), ()


def _needs_other_data(spec: JobSpec) -> FieldProblem | None:
    """Tables go into families of vectors only; a list that a user wrote is judged by its layers."""
    family, source, shape = spec.network.family, spec.dataset.title, spec.dataset.facts.input_shape
    if family in ("convnet", "vgg", "resnet", "inception") and len(shape) != 3:
        what = "is a table" if len(shape) == 1 else f"has sequences of {shape[0]} × {shape[1]}"
        remedy = "mlp" if len(shape) == 1 else "recurrent or mlp"
        message = f"a {family} needs images, and {source} {what}: use the family {remedy}, or data of images"
        return FieldProblem("/network/family", "needs_images", message)
    if family == "recurrent" and len(shape) == 1:
        message = f"a recurrent network needs sequences or images, and {source} is a table: use the family mlp"
        return FieldProblem("/network/family", "needs_sequences", message)
    return None


def _where(layer: Layer, spec: JobSpec) -> str:
    """The field that a layer which does not fit comes from."""
    if isinstance(spec.network, SequentialSpec):
        return places(spec.network.layers)[layer.name][0]
    if isinstance(layer, words.GroupNorm):
        return source(spec.batch_norm, layer.name, "groups")
    if isinstance(spec.network, ConvNetSpec):
        return "/network/pool_every"
    return "/network"


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
        batches=_describe_batches(bounds, rows, training.batch_size) + _describe_groups(spec, placed),
        warnings=tuple(doubts(spec, layers, placed)),
    )


def _describe_batches(bounds: tuple[tuple[int, int], ...], rows: int, batch_size: int) -> str:
    start, end = bounds[-1]
    if end < rows:
        return f"{_count(len(bounds), batch_size)}; {rows - end} of {rows} samples are left out of each epoch"
    if end - start == batch_size:
        return _count(len(bounds), batch_size)
    return f"{_count(len(bounds) - 1, batch_size)} and a last one of {end - start}"


def _describe_groups(spec: JobSpec, placed: tuple[Placed, ...]) -> str:
    """How virtual batches divide a batch; nothing without them."""
    size = ghost_size(placed)
    if size is None:
        return ""
    sizes = ghost_sizes(spec.training.batch_size, size)
    text = f"; batch statistics of {len(sizes)} group{'' if len(sizes) == 1 else 's'} of {size} in a batch"
    return text if sizes[-1] == size else f"{text}, the last of {sizes[-1]} with the remainder"


def _count(batches: int, batch_size: int) -> str:
    return f"{batches} batch{'' if batches == 1 else 'es'} of {batch_size}"
