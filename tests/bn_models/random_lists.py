"""Random lists of layers with parameters and statistics, drawn by hypothesis, and what they compute in float64.

The reference knows nothing of folding, and nothing of the modules that are trained.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from hypothesis import strategies as st
from torch.nn import functional

from bn_models.architecture import LayerDoesNotFit, flat, place
from bn_models.population import LayerStatistics, PopulationStatistics
from core.spec import layers as spec
from core.spec.layers import Layer
from core.spec.normalization import (
    BatchOptions,
    GroupOptions,
    InstanceOptions,
    LayerOptions,
    LocalResponseOptions,
    WhiteningOptions,
)

ACTIVATIONS = ["relu", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu"]
AFFINES = [True, False, "gamma", "beta"]


@dataclass(frozen=True)
class Case:
    """A list with everything that freezing it needs, and float64 inputs of (n, *input_shape)."""

    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    state: dict[str, np.ndarray]
    statistics: PopulationStatistics
    inputs: np.ndarray

    def expected(self) -> np.ndarray:
        with torch.no_grad():
            return unfolded(self, self.layers, torch.from_numpy(self.inputs)).numpy()


class Names:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"


def case_of(layers: tuple[Layer, ...], input_shape: tuple[int, ...], seed: int = 0, rows: int = 4) -> Case:
    """Parameters and statistics far from their start, drawn from `seed`."""
    random = np.random.default_rng(seed)
    state: dict[str, np.ndarray] = {}
    statistics: dict[str, LayerStatistics] = {}
    for placed in flat(place(layers, input_shape)):
        _parameters(placed.layer, placed.input_shape, random, state, statistics)
    population = PopulationStatistics(statistics, "pooled", 16, 64, "biased")
    return Case(layers, input_shape, state, population, random.normal(0.3, 1.2, (rows, *input_shape)))


def _parameters(layer, shape, random, state, statistics) -> None:
    def draw(name, *sizes, scale=0.5):
        state[f"{layer.name}.{name}"] = random.normal(0.1, scale, sizes)

    def measured(name, channels, size=None):
        mean, deviation = random.normal(0.2, 0.8, channels), random.uniform(0.4, 2.0, channels)
        covariance = None if size is None else _covariances(random, channels, size)
        variance = deviation**2 if size is None else covariance[np.arange(channels), np.arange(channels) % size]
        statistics[name] = LayerStatistics(mean, variance, 64, covariance)

    match layer:
        case spec.Linear():
            draw("weight", layer.features, shape[0], scale=shape[0] ** -0.5)
        case spec.Conv2d():
            window = (shape[0], layer.kernel_size, layer.kernel_size)
            draw("weight", layer.channels, *window, scale=prod(window) ** -0.5)
        case spec.LSTM():
            draw("input.weight", 4 * layer.units, shape[1])
            draw("hidden.weight", 4 * layer.units, layer.units)
            draw("bias", 4 * layer.units)
            if layer.batch_norm is not None:
                for name, channels in _lstm_norms(layer):
                    if layer.batch_norm.affine in (True, "gamma"):
                        draw(f"{name}.gamma", channels)
                    for step in range(shape[0]):
                        measured(f"{layer.name}.{name}.step{step}", channels)
                if layer.batch_norm.affine in (True, "beta"):
                    draw("cell_norm.beta", layer.units)
        case spec.BatchNorm():
            measured(layer.name, shape[0])
        case spec.Whitening():
            measured(layer.name, shape[0], min(layer.options.group_size, shape[0]))
    if isinstance(layer, spec.Linear | spec.Conv2d) and layer.bias:
        draw("bias", state[f"{layer.name}.weight"].shape[0])
    affine = getattr(getattr(layer, "options", None), "affine", False)
    if affine in (True, "gamma"):
        draw("gamma", shape[0])
    if affine in (True, "beta"):
        draw("beta", shape[0])


def _lstm_norms(layer):
    return [("input_norm", 4 * layer.units), ("hidden_norm", 4 * layer.units), ("cell_norm", layer.units)]


def _covariances(random, channels, size):
    rows = np.zeros((channels, size))
    for start in range(0, channels, size):
        width = min(size, channels - start)
        samples = random.normal(size=(width, 4 * width)) @ random.normal(size=(4 * width, 4 * width))
        rows[start : start + width, :width] = np.atleast_2d(np.cov(samples)) / (4 * width)
    return rows


def unfolded(case: Case, layers: tuple[Layer, ...], x: torch.Tensor) -> torch.Tensor:
    """`layers` in float64, each as its definition has it, with statistics fixed and dropout off."""
    for layer in layers:
        match layer:
            case spec.Residual():
                x = unfolded(case, layer.body, x) + unfolded(case, layer.shortcut, x)
            case spec.Parallel():
                x = torch.cat([unfolded(case, branch, x) for branch in layer.branches], 1)
            case _:
                x = _simple(case, layer, x)
    return x


def _simple(case: Case, layer, x):
    def parameter(name):
        value = case.state.get(f"{layer.name}.{name}")
        return None if value is None else torch.from_numpy(value)

    match layer:
        case spec.Linear():
            return functional.linear(x, parameter("weight"), parameter("bias"))
        case spec.Conv2d():
            return functional.conv2d(x, parameter("weight"), parameter("bias"), layer.stride, layer.padding)
        case spec.BatchNorm():
            return _normalized(case, layer.name, x, layer.options.eps, parameter("gamma"), parameter("beta"))
        case spec.Whitening():
            return _whitened(case, layer, x, parameter("gamma"), parameter("beta"))
        case spec.LayerNorm() | spec.GroupNorm() | spec.InstanceNorm():
            groups = {"layer_norm": 1, "instance_norm": x.shape[1]}.get(layer.layer) or layer.options.groups
            return functional.group_norm(x, groups, parameter("gamma"), parameter("beta"), layer.options.eps)
        case spec.LocalResponseNorm():
            options = layer.options
            channels = x if x.dim() > 2 else x[:, :, None]  # torch takes no vectors
            normalized = functional.local_response_norm(channels, options.size, options.alpha, options.beta, options.k)
            return normalized.view_as(x)
        case spec.Activation():
            return getattr(functional, layer.kind)(x)
        case spec.MaxPool2d():
            return functional.max_pool2d(x, layer.kernel_size, layer.stride, layer.padding)
        case spec.AveragePool2d():
            return functional.avg_pool2d(x, layer.kernel_size, layer.stride, layer.padding, count_include_pad=False)
        case spec.GlobalAveragePool2d():
            return x.mean((2, 3))
        case spec.Flatten():
            return x.flatten(1)
        case spec.ImageRows():
            return torch.stack([x[:, :, row].flatten(1) for row in range(x.shape[2])], 1)
        case spec.LSTM():
            return _lstm(case, layer, x, parameter)
        case spec.Dropout():
            return x
    raise TypeError(layer)


def _normalized(case, name, x, eps, gamma, beta):
    layer = case.statistics.layers[name]
    mean, variance = torch.from_numpy(layer.mean), torch.from_numpy(layer.variance)
    return functional.batch_norm(x, mean, variance, gamma, beta, eps=eps)


def _whitened(case, layer, x, gamma, beta):
    """Group by group, the samples of a channel in a row."""
    population, options = case.statistics.layers[layer.name], layer.options
    values = x.transpose(0, 1).flatten(1) - torch.from_numpy(population.mean)[:, None]
    rows = torch.from_numpy(population.covariance)
    parts = []
    for start in range(0, len(rows), rows.shape[1]):
        part = values[start : start + rows.shape[1]]
        p = torch.eye(len(part), dtype=torch.float64)
        sigma = rows[start : start + len(part), : len(part)] + options.eps * p
        for _ in range(options.iterations):
            p = (3 * p - p @ p @ p @ (sigma / sigma.trace())) / 2
        parts.append(p / sigma.trace().sqrt() @ part)
    white = torch.cat(parts)
    white = white if gamma is None else white * gamma[:, None]
    white = white if beta is None else white + beta[:, None]
    return white.view(x.shape[1], len(x), *x.shape[2:]).transpose(0, 1)


def _lstm(case, layer, x, parameter):
    def norm(name, value, step):
        if layer.batch_norm is None:
            return value
        gamma, beta = parameter(f"{name}.gamma"), parameter(f"{name}.beta")
        return _normalized(case, f"{layer.name}.{name}.step{step}", value, layer.batch_norm.eps, gamma, beta)

    h = c = torch.zeros(len(x), layer.units, dtype=torch.float64)
    states = []
    for step in range(x.shape[1]):
        by_input = norm("input_norm", x[:, step] @ parameter("input.weight").T, step)
        by_hidden = norm("hidden_norm", h @ parameter("hidden.weight").T, step)
        i, f, g, o = (by_input + by_hidden + parameter("bias")).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * norm("cell_norm", c, step).tanh()
        states.append(h)
    return h if layer.outputs == "last" else torch.stack(states, 1)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Maps, vectors or sequences in; any layers in any order, residual and parallel ones nested; 3 outputs."""
    names = Names()
    kind = draw(st.sampled_from(["maps", "maps", "maps", "vector", "sequence"]))
    if kind == "maps":
        shape = (draw(st.integers(1, 4)), draw(st.integers(3, 8)), draw(st.integers(3, 8)))
    elif kind == "vector":
        shape = (draw(st.integers(1, 9)),)
    else:
        shape = (draw(st.integers(1, 4)), draw(st.integers(1, 6)))
    layers = list(draw(_chain(names, shape, 6, 2)))
    while len(_end(layers, shape)) == 3:
        head = draw(st.sampled_from(["flatten", "global_average", "rows"]))
        layers.append(_head(head, names))
    if len(_end(layers, shape)) == 2:
        layers += draw(_sequence(names))
    layers += draw(_chain(names, _end(layers, shape), 4, 1))
    layers.append(spec.Linear(name=names("output"), features=3, bias=True))
    return case_of(tuple(layers), shape, draw(st.integers(0, 2**32 - 1)))


def _end(layers, shape):
    return place(tuple(layers), shape)[-1].output_shape if layers else shape


def _head(head, names):
    if head == "flatten":
        return spec.Flatten(name=names("flatten"))
    return (spec.GlobalAveragePool2d if head == "global_average" else spec.ImageRows)(name=names(head))


@st.composite
def _sequence(draw, names):
    def lstm(outputs):
        options = BatchOptions(affine=draw(st.sampled_from(AFFINES))) if draw(st.booleans()) else None
        return spec.LSTM(name=names("lstm"), units=draw(st.integers(1, 5)), batch_norm=options, outputs=outputs)

    layers = [lstm("sequence") for _ in range(draw(st.integers(0, 1)))]
    if draw(st.booleans()):
        layers.append(spec.Activation(name=names("activation"), kind=draw(st.sampled_from(ACTIVATIONS))))
    if draw(st.integers(0, 4)) == 0:
        return [*layers, spec.Flatten(name=names("flatten"))]
    return [*layers, lstm("last")]


@st.composite
def _chain(draw, names, shape, longest, depth):
    """Up to `longest` layers that keep the number of axes, for samples of `shape`."""
    layers = []
    for _ in range(draw(st.integers(0, longest))):
        if len(shape) == 2:
            break
        layer = draw(_maps_layer(names, shape, depth) if len(shape) == 3 else _vector_layer(names, shape, depth))
        layers.append(layer)
        shape = _end([layer], shape)
    return tuple(layers)


@st.composite
def _vector_layer(draw, names, shape, depth):
    choices = [
        "linear",
        "linear",
        "activation",
        "batch",
        "batch",
        "whitening",
        "layer",
        "group",
        "local_response",
        "dropout",
    ]
    kind = draw(st.sampled_from(choices + ["residual"] * bool(depth)))
    if kind == "residual":
        body = (*draw(_chain(names, shape, 2, depth - 1)),)
        end = _end(body, shape)
        body = (*body, spec.Linear(name=names("linear"), features=shape[0], bias=False)) if end != shape else body
        after = _normalization(draw, names, "batch", shape)
        return spec.Residual(name=names("residual"), body=(*body, after), shortcut=())
    if kind == "linear":
        return spec.Linear(name=names("linear"), features=draw(st.integers(1, 7)), bias=draw(st.booleans()))
    return _simple_layer(draw, names, kind, shape)


@st.composite
def _maps_layer(draw, names, shape, depth):
    choices = ["convolution", "convolution", "activation", "max_pool", "average_pool", "batch", "batch", "whitening"]
    choices += ["layer", "group", "instance", "local_response", "dropout"]
    kind = draw(st.sampled_from(choices + ["residual", "parallel"] * bool(depth)))
    _, height, width = shape
    if kind in ("residual", "parallel"):
        ways = [draw(_chain(names, shape, 3, depth - 1)) for _ in range(2 if kind == "residual" else 3)]
        size = _end(ways[0], shape)[1:]
        if any(_end(way, shape)[1:] != size for way in ways):  # none of them may shrink then
            ways = [tuple(layer for layer in way if _keeps_size((layer,), shape)) for way in ways]
            ways = [way if _keeps_size(way, shape) else () for way in ways]
        if kind == "parallel":
            return spec.Parallel(name=names("parallel"), branches=tuple(ways))
        ways = [
            (*way, spec.Conv2d(name=names("end"), channels=3, kernel_size=1, bias=draw(st.booleans()))) for way in ways
        ]
        return spec.Residual(name=names("residual"), body=ways[0], shortcut=ways[1])
    window = draw(st.integers(1, min(3, height, width)))
    stride = draw(st.integers(1, 2))
    if kind == "convolution":
        padding, bias = draw(st.integers(0, window - 1)), draw(st.booleans())
        out = draw(st.integers(1, 5))
        return spec.Conv2d(
            name=names("convolution"), channels=out, kernel_size=window, stride=stride, padding=padding, bias=bias
        )
    if kind in ("max_pool", "average_pool"):
        pool = spec.MaxPool2d if kind == "max_pool" else spec.AveragePool2d
        padding = draw(st.integers(0, window // 2))
        return pool(name=names(kind), kernel_size=window, stride=stride, padding=padding)
    return _simple_layer(draw, names, "batch" if kind == "instance" and height * width == 1 else kind, shape)


def _keeps_size(way, shape):
    try:
        return _end(way, shape)[1:] == shape[1:]
    except LayerDoesNotFit:  # a layer before it, whose channels it knew, is gone
        return False


def _simple_layer(draw, names, kind, shape):
    if kind == "activation":
        return spec.Activation(name=names(kind), kind=draw(st.sampled_from(ACTIVATIONS)))
    if kind == "dropout":
        return spec.Dropout(name=names(kind), probability=0.5)
    if kind == "local_response":
        options = LocalResponseOptions(size=draw(st.integers(1, 6)), alpha=0.3, beta=0.6, k=1.5)
        return spec.LocalResponseNorm(name=names(kind), options=options)
    return _normalization(draw, names, kind, shape)


def _normalization(draw, names, kind, shape):
    affine = draw(st.sampled_from(AFFINES))
    if kind == "whitening":
        size, iterations = draw(st.integers(1, 4)), draw(st.integers(1, 6))
        options = WhiteningOptions(affine=affine, group_size=size, iterations=iterations, eps=1e-3)
        return spec.Whitening(name=names(kind), options=options)
    if kind == "layer":
        return spec.LayerNorm(name=names(kind), options=LayerOptions(affine=affine, eps=1e-2))
    if kind == "group":
        groups = draw(st.sampled_from([g for g in range(1, shape[0] + 1) if shape[0] % g == 0]))
        return spec.GroupNorm(name=names(kind), options=GroupOptions(affine=affine, groups=groups, eps=1e-2))
    if kind == "instance":
        return spec.InstanceNorm(name=names(kind), options=InstanceOptions(affine=affine, eps=1e-2))
    return spec.BatchNorm(name=names(kind), options=BatchOptions(affine=affine))
