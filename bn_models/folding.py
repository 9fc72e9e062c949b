"""Freezing: batch norm becomes its affine map, and the map goes into a layer beside it, in float64.

Source: Ioffe & Szegedy 2015, Algorithm 2, line 11:
y = gamma/sqrt(Var[x] + eps) · x + (beta − gamma·E[x]/sqrt(Var[x] + eps)).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bn_models.population import LayerStatistics, PopulationStatistics
from core.spec import layers as spec
from core.spec.layers import Layer

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FoldedLinear:
    """weight (features, columns), bias (features,)."""

    name: str
    weight: Array
    bias: Array


@dataclass(frozen=True)
class FoldedConv2d:
    """weight (channels, channels before, k, k), bias (channels,)."""

    name: str
    weight: Array
    bias: Array
    stride: int
    padding: int


@dataclass(frozen=True)
class Affine:
    """y = scale · x + shift per channel: a batch norm that no layer beside it could take in."""

    name: str
    scale: Array
    shift: Array


Weighted = FoldedLinear | FoldedConv2d
FoldedLayer = Weighted | Affine | spec.Activation | spec.MaxPool2d | spec.GlobalAveragePool2d | spec.Flatten


@dataclass(frozen=True)
class FoldedNetwork:
    """Without batch norm and without dropout; weights in float64."""

    layers: tuple[FoldedLayer, ...]


def fold(
    layers: tuple[Layer, ...], state: Mapping[str, Array], statistics: PopulationStatistics | None
) -> FoldedNetwork:
    """The frozen form of `layers` with the parameters of `state` (`<layer>.weight`, …).

    A batch norm is folded into the linear or convolution layer right before it, else into the one
    after it, where no zero padding, pooling maximum or activation lies between; else it stays an
    affine layer. Raises ValueError when a batch norm layer has no statistics.
    """
    folded: list[FoldedLayer] = []
    for layer in layers:
        if isinstance(layer, spec.Dropout):
            continue
        frozen = _freeze(layer, state, statistics)
        before = folded[-1] if folded else None
        if isinstance(frozen, Affine) and isinstance(before, FoldedLinear | FoldedConv2d):
            folded[-1] = _fold_into_layer_before(before, frozen)
        else:
            folded.append(frozen)
    return FoldedNetwork(_fold_forward(folded))


def _freeze(layer: Layer, state: Mapping[str, Array], statistics: PopulationStatistics | None) -> FoldedLayer:
    match layer:
        case spec.Linear():
            return FoldedLinear(layer.name, *_parameters(layer, state))
        case spec.Conv2d():
            return FoldedConv2d(layer.name, *_parameters(layer, state), layer.stride, layer.padding)
        case spec.BatchNorm():
            if statistics is None or layer.name not in statistics.layers:
                raise ValueError(f"layer {layer.name} has no population statistics: measure them before folding")
            return _affine(layer, state, statistics.layers[layer.name])
        case spec.Dropout():
            raise ValueError(f"layer {layer.name}: dropout has no frozen form")
        case _:
            return layer


def _parameters(layer: spec.Linear | spec.Conv2d, state: Mapping[str, Array]) -> tuple[Array, Array]:
    weight = _float64(state[f"{layer.name}.weight"])
    return weight, _float64(state[f"{layer.name}.bias"]) if layer.bias else np.zeros(len(weight))


def _affine(layer: spec.BatchNorm, state: Mapping[str, Array], population: LayerStatistics) -> Affine:
    scale = 1.0 / np.sqrt(population.variance + layer.options.eps)
    if not layer.options.affine:
        return Affine(layer.name, scale, -population.mean * scale)
    scale = _float64(state[f"{layer.name}.gamma"]) * scale
    return Affine(layer.name, scale, _float64(state[f"{layer.name}.beta"]) - population.mean * scale)


def _fold_into_layer_before(before: Weighted, affine: Affine) -> Weighted:
    """scale · (Wx + b) + shift = (scale · W) x + (scale · b + shift)."""
    weight = before.weight * _along(affine.scale, 0, before.weight.ndim)
    return replace(before, weight=weight, bias=before.bias * affine.scale + affine.shift)


def _fold_forward(layers: list[FoldedLayer]) -> tuple[FoldedLayer, ...]:
    """Moves each affine layer into the weighted layer that its output reaches; the last one first,
    so that of two in a row the second is gone when it is the first one's turn."""
    folded = list(layers)
    for affine in [layer for layer in reversed(layers) if isinstance(layer, Affine)]:
        position = next(index for index, layer in enumerate(folded) if layer is affine)
        target = _next_weighted(folded, position)
        if target is not None:
            index, after = target
            folded[index] = _fold_into_layer_after(after, affine)
            del folded[position]
    return tuple(folded)


def _next_weighted(layers: list[FoldedLayer], position: int) -> tuple[int, Weighted] | None:
    """The layer after `position` that can take an affine map in, if only layers that keep it lie between.

    Flattening and averaging keep an affine map; a maximum does not where the scale is negative; zeros
    that pad a convolution would have to become −shift/scale.
    """
    for index in range(position + 1, len(layers)):
        layer = layers[index]
        if isinstance(layer, FoldedLinear) or (isinstance(layer, FoldedConv2d) and layer.padding == 0):
            return index, layer
        if not isinstance(layer, spec.Flatten | spec.GlobalAveragePool2d):
            return None
    return None


def _fold_into_layer_after(after: Weighted, affine: Affine) -> Weighted:
    """W (scale · x + shift) + b = (W · scale) x + (b + W shift); a flattened map repeats its channel's."""
    positions = after.weight.shape[1] // affine.scale.size
    scale, shift = (_along(np.repeat(part, positions), 1, after.weight.ndim) for part in (affine.scale, affine.shift))
    others = tuple(range(1, after.weight.ndim))
    return replace(after, weight=after.weight * scale, bias=after.bias + (after.weight * shift).sum(others))


def _along(values: Array, axis: int, axes: int) -> Array:
    """A vector shaped to broadcast along one axis of an array with `axes` axes."""
    return values.reshape([-1 if index == axis else 1 for index in range(axes)])


def _float64(values: Array) -> Array:
    return np.asarray(values, dtype=np.float64)
