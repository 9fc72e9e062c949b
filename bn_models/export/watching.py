"""What the frozen graph still shows of the layers that were normalized, as nodes to be added to it.

Folding leaves no batch norm, but its values are there. Where it went into the linear or convolution layer before it,
that layer's output is y = gamma · (x − E[x]) / sqrt(Var[x] + eps) + beta, so (y − beta) / gamma has mean 0 and at
most deviation 1 over the training data. Anywhere else the output of the layer before is x itself.

The nodes are a fragment: bytes that stand behind the graph's own bytes, which is how protobuf joins two messages.
The graph that answers stays as it is, for a value that leaves it can not be fused with what comes after.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper

from bn_models.architecture import flat, place
from bn_models.architecture.shapes import Shape
from bn_models.export.builder import Graph
from bn_models.export.parity import Reference, unfolded
from bn_models.export.scaling import InputScaling
from bn_models.networks import Network
from bn_models.normalization import Statistical, normalizations
from bn_models.population import PopulationStatistics
from bn_models.receipt import WATCHED, open_session
from core.spec import layers as spec
from core.spec.layers import Layer

Array = NDArray[np.float64]
MEANS, SQUARES = WATCHED
MOST_ROWS, FEWEST_ROWS = 16, 4
AGREEMENT = 1e-3
"""Of a normalized value, relative beyond 1: a channel that the graph shows less exactly is not watched."""
NOT_SHOWN = "its values do not occur in the frozen graph"
RECURRENT = "it is inside of a recurrent layer, which has statistics for every time step"


@dataclass(frozen=True)
class Watched:
    """A layer with `channels`, of which `blind` are not shown: a gamma of 0 hides what comes in."""

    name: str
    channels: int
    blind: int


@dataclass(frozen=True)
class Watching:
    """The fragment gives `MEANS` and `SQUARES`, (batch, channels of all layers in order): of each row's normalized
    values, and of their squares, the mean over the positions of a map. Blind channels are 0."""

    fragment: bytes
    layers: tuple[Watched, ...]
    left_out: dict[str, str]
    """By name, why."""


@dataclass(frozen=True)
class _View:
    """normalized = (value − offset) · scale, with `shape` of one sample."""

    name: str
    value: str
    shape: Shape
    offset: Array
    scale: Array


def watching(
    onnx_bytes: bytes,
    network: Network,
    statistics: PopulationStatistics,
    scaling: InputScaling,
    reference: Reference,
    chosen: tuple[str, ...] | None = None,
) -> Watching:
    """The layers (`chosen`, or all) that the graph shows, proved channel by channel on some probe rows (a quarter, as
    the network is slow in float64) against what the unfolded network normalizes."""
    rows = reference.rows[: min(MOST_ROWS, max(FEWEST_ROWS, len(reference.rows) // 4))]
    exact = _normalized(network, statistics, scaling, rows)
    wanted = [name for name in exact if chosen is None or name in chosen]
    shown = [view for view in _views(onnx_bytes, network, statistics) if view.name in wanted]
    found = _means(onnx_bytes, shown, rows) if shown else []
    proved = [_proved(view, means, exact[view.name]) for view, means in zip(shown, found, strict=True)]
    kept = [view for view in proved if view is not None]
    missing = [name for name in wanted if name not in [view.name for view in kept]]
    listed = {layer.name for layer, _ in _places(network.layers, None)}
    return Watching(
        _fragment(kept) if kept else b"",
        tuple(Watched(view.name, view.scale.size, int((view.scale == 0.0).sum())) for view in kept),
        dict((name, NOT_SHOWN) if name in listed else (_recurrent(name), RECURRENT) for name in missing),
    )


def _recurrent(name: str) -> str:
    """The layer of `<layer>.<norm>.<step>`."""
    return name.rsplit(".", 2)[0]


def _proved(view: _View, found: NDArray[np.float32], wanted: Array) -> _View | None:
    """With a scale of 0 for each channel that disagrees; None where most of them do."""
    off = np.abs(found - wanted) > AGREEMENT * (1.0 + np.abs(wanted))
    blind = off.any(axis=0) | ~np.isfinite(wanted).all(axis=0) | (view.scale == 0.0)
    if blind.mean() > 0.5:
        return None
    return replace(view, scale=np.where(blind, 0.0, view.scale))


def _views(onnx_bytes: bytes, network: Network, statistics: PopulationStatistics) -> list[_View]:
    """Where each layer's normalized values would stand, if folding moved nothing else in between."""
    values = [node.output[0] for node in onnx.load_from_string(onnx_bytes).graph.node]
    start = next((name for name in ("/input/scaled", "/input/centered") if name in values), "input")
    shapes = {item.layer.name: item.input_shape for item in flat(place(network.layers, network.input_shape))}
    layers, found = normalizations(network), []
    for layer, before in _places(network.layers, None):
        name = start if before is None else before.name
        value = f"{name}/layer" if f"{name}/layer" in values else name
        measured, module = statistics.layers[layer.name], layers[layer.name]
        if value not in {*values, "input"}:
            continue
        if isinstance(before, spec.Linear | spec.Conv2d):
            offset, scale = _of_output(module)
        elif isinstance(layer, spec.BatchNorm):
            offset, scale = measured.mean, 1.0 / np.sqrt(measured.variance + module.eps)
        else:
            continue  # whitening mixes channels: what comes in is not what it makes of it
        found.append(_View(layer.name, value, shapes[layer.name], offset, scale))
    return found


def _places(
    layers: tuple[Layer, ...], before: Layer | None
) -> Iterator[tuple[spec.BatchNorm | spec.Whitening, Layer | None]]:
    """Each layer with statistics, and the layer whose output it takes; None: the network's scaled input."""
    for layer in layers:
        match layer:
            case spec.BatchNorm() | spec.Whitening():
                yield layer, before
            case spec.Residual():
                yield from _places(layer.body, before)
                yield from _places(layer.shortcut, before)
            case spec.Parallel():
                for branch in layer.branches:
                    yield from _places(branch, before)
        if not isinstance(layer, spec.Dropout):
            before = layer


def _of_output(module: Statistical) -> tuple[Array, Array]:
    """beta and 1 / gamma, 0 where gamma is 0."""
    size = module.running_mean.numel()
    gamma = np.ones(size) if module.gamma is None else module.gamma.detach().double().cpu().numpy()
    beta = np.zeros(size) if module.beta is None else module.beta.detach().double().cpu().numpy()
    with np.errstate(divide="ignore"):
        return beta, np.where(np.abs(gamma) < np.finfo(np.float32).tiny, 0.0, 1.0 / gamma)


def _normalized(
    network: Network, statistics: PopulationStatistics, scaling: InputScaling, rows: NDArray[np.float32]
) -> dict[str, Array]:
    """(rows, channels) by layer, in order of computation: the mean over positions of what each layer makes of its
    input before gamma and beta, in float64."""
    found: dict[str, list[Array]] = {}

    def note(name: str, module: Statistical, _given: object, output: torch.Tensor) -> None:
        beta, inverse = _of_output(module)
        per_row = output.detach().double().flatten(2).mean(2) if output.dim() > 2 else output.detach().double()
        found.setdefault(name, []).append((per_row.cpu().numpy() - beta) * inverse)

    def listen(copy: Network) -> None:
        for name, module in normalizations(copy).items():
            module.register_forward_hook(partial(note, name))

    unfolded(network, statistics, scaling, rows, torch.float64, listen)
    return {name: np.concatenate(found[name]) for name in normalizations(network)}


def _means(onnx_bytes: bytes, views: list[_View], rows: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What the graph shows of `rows`, (rows, channels) a view."""
    session = open_session(onnx_bytes + _fragment(views))
    (means,) = session.run([MEANS], {"input": rows})
    return np.split(means, np.cumsum([view.scale.size for view in views])[:-1], axis=1)


def _fragment(views: list[_View]) -> bytes:
    graph = Graph("input", ())
    means, squares = [], []
    for view in views:
        spread = (-1, *[1] * (len(view.shape) - 1))
        name = f"/watch/{view.name}"
        graph.value = view.value
        graph.node("Sub", f"{name}/centered", graph.constant(f"{name}/offset", view.offset.reshape(spread)))
        scaled = graph.node("Mul", f"{name}/scaled", graph.constant(f"{name}/scale", view.scale.reshape(spread)))
        means.append(_over_positions(graph, f"{name}/mean", view.shape))
        graph.join("Mul", f"{name}/squares", scaled, scaled)
        squares.append(_over_positions(graph, f"{name}/square", view.shape))
    graph.join("Concat", MEANS, *means, axis=1)
    graph.join("Concat", SQUARES, *squares, axis=1)
    channels = sum(view.scale.size for view in views)
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels]) for name in WATCHED]
    added = GraphProto(node=graph.nodes, initializer=graph.constants, output=outputs)
    return bytes(ModelProto(graph=added).SerializeToString())


def _over_positions(graph: Graph, name: str, shape: Shape) -> str:
    if len(shape) == 1:
        return graph.value
    axes = graph.constant(f"/watch/axes/{len(shape)}", np.arange(2, len(shape) + 1))
    return graph.node("ReduceMean", name, axes, keepdims=0)
