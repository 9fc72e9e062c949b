"""Where a network can be observed, under which names, and what of an observation can not be done."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from bn_models.architecture.shapes import Placed, Shape, flat
from bn_models.architecture.statistics import statistical
from core.errors import FieldProblem
from core.spec import layers as words
from core.spec.job import JobSpec
from core.spec.layers import ActivationKind
from core.spec.observation import ObserveSpec

LONGEST_SERIES = 120
"""Characters: as long as the name of a series may be."""
LONGEST_FIGURE = "deviation_shift"
SHOWN_NAMES = 12


@dataclass(frozen=True)
class Site:
    """The input of a nonlinearity, or of a layer with weights (`activation` None), of `width` units or feature maps.

    `moves`: something below it learns, so that its moments change from step to step.
    """

    name: str
    layer: str
    width: int
    activation: ActivationKind | None
    moves: bool


def sites(placed: tuple[Placed, ...], moves: bool = False) -> tuple[Site, ...]:
    """All of them in the order of computation; the three nonlinearities of an LSTM are named after it."""
    found: list[Site] = []
    for item in placed:
        for branch in item.inside:
            found += sites(branch, moves)
        found += _of_layer(item, moves)
        moves = moves or item.parameters > 0
    return tuple(found)


def _of_layer(item: Placed, moves: bool) -> Iterator[Site]:
    name, width = item.layer.name, channels(item.input_shape)
    match item.layer:
        case words.Linear() | words.Conv2d():
            yield Site(name, name, width, None, moves)
        case words.Activation():
            yield Site(name, name, width, item.layer.kind, moves)
        case words.LSTM():
            units = item.layer.units
            yield Site(name, name, width, None, moves)
            yield Site(f"{name}.gates", name, 3 * units, "sigmoid", True)
            yield Site(f"{name}.value", name, units, "tanh", True)
            yield Site(f"{name}.cell", name, units, "tanh", True)
        case _:
            pass


def channels(shape: Shape) -> int:
    """Of a sample: columns of a vector, feature maps, or features of each step of a sequence."""
    return shape[-1] if len(shape) == 2 else shape[0]


def with_percentiles(found: tuple[Site, ...], observe: ObserveSpec) -> tuple[Site, ...]:
    """The nonlinearities that `observe` asks for, or the last one; of a last LSTM all three."""
    nonlinear = tuple(site for site in found if site.activation is not None)
    wanted = observe.layers or tuple(site.layer for site in nonlinear[-1:])
    return tuple(site for site in nonlinear if site.name in wanted or site.layer in wanted)


def series_name(place: str, figure: str) -> str:
    return f"observe/{place}/{figure}"


def unobservable(spec: JobSpec, placed: tuple[Placed, ...]) -> Iterator[FieldProblem]:
    """Every problem of `spec.observe`; `placed` is empty when there is no such network."""
    observe = spec.observe
    if observe is None:
        return
    yield from _of_the_probe(spec, observe)
    yield from _without_effect(observe)
    if placed:
        yield from _of_the_layers(observe, sites(placed))
        yield from _of_the_names(placed)


def unwatchable(spec: JobSpec, placed: tuple[Placed, ...]) -> Iterator[FieldProblem]:
    """Every problem of the layers that a published version is to watch."""
    serving = spec.publish.serving if spec.publish else None
    if serving is None or not placed:
        return
    found = {item.layer.name: item.layer for item, _ in statistical(placed)}
    known = [name for name, layer in found.items() if not isinstance(layer, words.LSTM)]
    for position, name in enumerate(serving.watch or ()):
        if name not in known:
            lacking = "can not be watched, being recurrent" if name in found else "is no batch norm of this network"
            message = f"is {name}, which {lacking}: {_choice(name, known)}"
            yield FieldProblem(f"/publish/serving/watch/{position}", "no_such_layer", message)


def _of_the_probe(spec: JobSpec, observe: ObserveSpec) -> Iterator[FieldProblem]:
    _, validation, test = spec.dataset.split_sizes()
    held = validation if observe.split == "validation" else test
    if held == 0:
        message = (
            f"is {observe.split}, and there is no such split: set dataset.{observe.split}_fraction, for instance to "
            f"0.1, or take the rows from the {'test' if observe.split == 'validation' else 'validation'} split"
        )
        yield FieldProblem("/observe/split", "needs_split", message)
    elif held == 1:
        message = f"is {observe.split}, and that split has a single row, whose moments say nothing: hold more rows out"
        yield FieldProblem("/observe/split", "needs_rows", message)


def _without_effect(observe: ObserveSpec) -> Iterator[FieldProblem]:
    for field in ("layers", "unit"):
        if getattr(observe, field) is not None and "percentiles" not in observe.record:
            message = "is about percentiles, which record leaves out: leave it out too, or add percentiles to record"
            yield FieldProblem(f"/observe/{field}", "nothing_recorded", message)


def _of_the_layers(observe: ObserveSpec, found: tuple[Site, ...]) -> Iterator[FieldProblem]:
    nonlinear = [site for site in found if site.activation is not None]
    known = dict.fromkeys(name for site in nonlinear for name in (site.layer, site.name))
    for position, name in enumerate(observe.layers or ()):
        if name not in known:
            message = f"is {name}, and the network has no such nonlinearity: {_choice(name, list(known))}"
            yield FieldProblem(f"/observe/layers/{position}", "no_such_layer", message)
    chosen = with_percentiles(found, observe)
    narrow = min(chosen, key=lambda site: site.width, default=None)
    if observe.unit is not None and narrow is not None and observe.unit >= narrow.width:
        message = (
            f"is {observe.unit}, and {narrow.name} has {narrow.width} units, counted from 0: "
            f"set at most {narrow.width - 1}, or null for all together"
        )
        yield FieldProblem("/observe/unit", "no_such_unit", message)


def _choice(name: str, known: list[str]) -> str:
    if not known:
        return "it has none; leave this out"
    if len(known) <= SHOWN_NAMES:
        return f"use {', '.join(known)}"
    close = get_close_matches(name, known, n=3, cutoff=0.0)
    return f"use one of its {len(known)}, nearest are {', '.join(close)}; the last is {known[-1]}"


def _of_the_names(placed: tuple[Placed, ...]) -> Iterator[FieldProblem]:
    names = [item.layer.name for item in flat(placed)]
    names += [
        f"{item.layer.name}.hidden_norm"
        for item in flat(placed)
        if isinstance(item.layer, words.LSTM)  # the longest of what it has inside
    ]
    longest = max(names, key=len)
    too_long = len(series_name(longest, LONGEST_FIGURE)) - LONGEST_SERIES
    if too_long > 0:
        message = (
            f"would record series named after {longest}, {too_long} characters longer than the {LONGEST_SERIES} that "
            "a name may have: shorten the layer's name"
        )
        yield FieldProblem("/observe", "name_too_long", message)
