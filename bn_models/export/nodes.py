"""How each frozen layer is written as nodes of an ONNX graph.

Operators are chosen such that ONNX Runtime gives a row the same bits in any company. Where its kernel
takes the rows of a batch as one run of numbers, eight at a time and what is left one by one, a row's
last bits depend on where it stands: so do Elu, LRN, InstanceNormalization, GroupNormalization and the
Reduce operators (ONNX Runtime 1.32, rows that are no multiple of 4 numbers). LayerNormalization,
pooling, Pow, Exp, Gemm and Conv do not.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bn_models.architecture import Placed
from bn_models.export.builder import Graph
from bn_models.export.recurrent import write_lstm
from bn_models.frozen import (
    Affine,
    FoldedConv2d,
    FoldedLayer,
    FoldedLinear,
    FoldedLSTM,
    FoldedParallel,
    FoldedResidual,
    FoldedSimple,
    SampleNorm,
)
from core.spec import layers as spec
from core.spec.layers import ActivationKind

Shape = tuple[int, ...]
Places = Mapping[str, Placed]

OPERATORS: dict[ActivationKind, tuple[str, dict[str, Any]]] = {
    "relu": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "gelu": ("Gelu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
}


def write_layers(graph: Graph, layers: tuple[FoldedLayer, ...], places: Places) -> None:
    """Writes `layers` one after the other; `places` knows the shapes of every simple layer by its name."""
    for layer in layers:
        match layer:
            case FoldedResidual():
                graph.join("Add", layer.name, *_write_ways(graph, (layer.body, layer.shortcut), places))
            case FoldedParallel():
                graph.join("Concat", layer.name, *_write_ways(graph, layer.branches, places), axis=1)
            case _:
                _write_layer(graph, layer, places[layer.name])


def _write_ways(graph: Graph, ways: tuple[tuple[FoldedLayer, ...], ...], places: Places) -> list[str]:
    """Every way starts at the current value; the names of what each gives."""
    start, ends = graph.value, []
    for way in ways:
        graph.value = start
        write_layers(graph, way, places)
        ends.append(graph.value)
    return ends


def _write_layer(graph: Graph, layer: FoldedSimple, placed: Placed) -> None:
    name, shape = layer.name, placed.input_shape
    match layer:
        case FoldedLinear():
            graph.node("Gemm", name, *_weights(graph, name, layer.weight, layer.bias), transB=1)
        case FoldedConv2d():
            weights = _weights(graph, name, layer.weight, layer.bias)
            graph.node("Conv", name, *weights, strides=[layer.stride] * 2, pads=[layer.padding] * 4)
        case Affine():
            _write_affine(graph, layer, shape)
        case SampleNorm():
            _write_sample_norm(graph, layer, shape)
        case FoldedLSTM():
            write_lstm(graph, layer, steps=shape[0])
        case spec.Activation():
            _write_activation(graph, layer)
        case spec.LocalResponseNorm():
            _write_local_response_norm(graph, layer, shape)
        case spec.MaxPool2d():
            graph.node("MaxPool", name, **_window(layer))
        case spec.AveragePool2d():
            graph.node("AveragePool", name, count_include_pad=0, **_window(layer))
        case spec.GlobalAveragePool2d():
            graph.node("GlobalAveragePool", f"{name}/maps")
            graph.node("Flatten", name, axis=1)
        case spec.Flatten():
            graph.node("Flatten", name, axis=1)
        case spec.ImageRows():
            graph.node("Transpose", f"{name}/transposed", perm=[0, 2, 1, 3])
            graph.node("Reshape", name, graph.shape(*placed.output_shape))


def _weights(graph: Graph, name: str, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> tuple[str, str]:
    return graph.constant(f"{name}/weight", weight), graph.constant(f"{name}/bias", bias)


def _window(layer: spec.MaxPool2d | spec.AveragePool2d) -> dict[str, Any]:
    return {
        "kernel_shape": [layer.kernel_size] * 2,
        "strides": [layer.stride] * 2,
        "pads": [layer.padding] * 4,
    }


def _write_affine(graph: Graph, layer: Affine, shape: Shape) -> None:
    if layer.matrix.ndim == 1:
        _write_scale_and_shift(graph, layer.name, layer.matrix, layer.shift, shape)
    elif len(shape) == 1:
        graph.node("Gemm", layer.name, *_weights(graph, layer.name, layer.matrix, layer.shift), transB=1)
    else:
        graph.node("Conv", layer.name, *_weights(graph, layer.name, layer.matrix[:, :, None, None], layer.shift))


def _write_scale_and_shift(
    graph: Graph,
    name: str,
    scale: NDArray[np.float64] | None,
    shift: NDArray[np.float64] | None,
    shape: Shape,
) -> None:
    """value · scale + shift per channel, of what there is; the last node is called `name`."""
    per_channel = (-1, *[1] * (len(shape) - 1))
    if scale is not None:
        constant = graph.constant(f"{name}/scale", scale.reshape(per_channel))
        graph.node("Mul", name if shift is None else f"{name}/scaled", constant)
    if shift is not None:
        graph.node("Add", name, graph.constant(f"{name}/shift", shift.reshape(per_channel)))


def _write_activation(graph: Graph, layer: spec.Activation) -> None:
    name, value = layer.name, graph.value
    if layer.kind == "silu":
        graph.node("Sigmoid", f"{name}/sigmoid")
        graph.node("Mul", name, value)
    elif layer.kind == "elu":  # max(x, 0) + (exp(min(x, 0)) − 1)
        zero, one = graph.constant("/zero", np.array(0.0)), graph.constant("/one", np.array(1.0))
        graph.node("Min", f"{name}/negative", zero)
        graph.node("Exp", f"{name}/exp")
        below = graph.node("Sub", f"{name}/below", one)
        graph.join("Max", f"{name}/positive", value, zero)
        graph.node("Add", name, below)
    else:
        operator, attributes = OPERATORS[layer.kind]
        graph.node(operator, name, **attributes)


def _write_sample_norm(graph: Graph, layer: SampleNorm, shape: Shape) -> None:
    """As groups of channels (all in one for layer norm, one each for instance norm), each normalized by itself."""
    name, groups = layer.name, _groups(layer, shape[0])
    eps = layer.layer.options.eps
    after = layer.gamma is not None or layer.beta is not None
    graph.node("Reshape", f"{name}/groups", graph.shape(groups, prod(shape) // groups))
    one = graph.constant("/one.each", np.ones(1))
    graph.node("LayerNormalization", f"{name}/normalized", one, axis=2, epsilon=eps)
    graph.node("Reshape", f"{name}/maps" if after else name, graph.shape(*shape))
    _write_scale_and_shift(graph, name, layer.gamma, layer.beta, shape)


def _groups(layer: SampleNorm, channels: int) -> int:
    match layer.layer:
        case spec.LayerNorm():
            return 1
        case spec.GroupNorm():
            return layer.layer.options.groups
        case spec.InstanceNorm():
            return channels


def _write_local_response_norm(graph: Graph, layer: spec.LocalResponseNorm, shape: Shape) -> None:
    """x / (k + alpha · mean of x² over `size` neighbouring channels, absent ones as 0)^beta."""
    name, options, value = layer.name, layer.options, graph.value
    graph.join("Mul", f"{name}/square", value, value)
    graph.node("Reshape", f"{name}/columns", graph.shape(1, shape[0], prod(shape[1:])))
    before, after = options.size // 2, (options.size - 1) // 2
    graph.node(
        "AveragePool",
        f"{name}/mean",
        kernel_shape=[options.size, 1],
        pads=[before, 0, after, 0],
        count_include_pad=1,
    )
    graph.node("Reshape", f"{name}/maps", graph.shape(*shape))
    graph.node("Mul", f"{name}/alpha", graph.constant(f"{name}/alpha.value", np.array(options.alpha)))
    graph.node("Add", f"{name}/k", graph.constant(f"{name}/k.value", np.array(options.k)))
    power = graph.node("Pow", f"{name}/power", graph.constant(f"{name}/beta.value", np.array(options.beta)))
    graph.join("Div", name, value, power)
