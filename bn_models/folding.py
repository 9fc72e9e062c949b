"""Folding: the affine maps of frozen batch norms go into the layers beside them, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bn_models.frozen import (
    Affine,
    Array,
    FoldedConv2d,
    FoldedLayer,
    FoldedLinear,
    FoldedParallel,
    FoldedResidual,
    Weighted,
    freeze,
)
from bn_models.population import PopulationStatistics
from core.spec import layers as spec
from core.spec.layers import Layer

Sequence = tuple[FoldedLayer, ...]


@dataclass(frozen=True)
class FoldedNetwork:
    """Without batch norm and without dropout, in float64. `source` is the list of layers that it was folded from."""

    layers: Sequence
    source: tuple[Layer, ...]


def fold(
    layers: tuple[Layer, ...],
    state: Mapping[str, NDArray[np.floating]],
    statistics: PopulationStatistics | None,
) -> FoldedNetwork:
    """The frozen form of `layers` with the parameters of `state` (`<layer>.weight`, …).

    The affine map of a batch norm or a whitening goes into the linear or convolution layer right
    before it, else into all that its output reaches, where no zero padding, maximum, activation or
    further consumer lies between; else it stays an affine layer.
    Raises ValueError when a layer that needs statistics has none.
    """

    def folded(sequence: tuple[Layer, ...]) -> Sequence:
        return _merge([frozen(layer) for layer in sequence if not isinstance(layer, spec.Dropout)])

    def frozen(layer: Layer) -> FoldedLayer:
        match layer:
            case spec.Residual():
                return FoldedResidual(layer.name, folded(layer.body), folded(layer.shortcut))
            case spec.Parallel():
                return FoldedParallel(layer.name, tuple(folded(branch) for branch in layer.branches))
            case _:
                return freeze(layer, state, statistics)

    return FoldedNetwork(folded(layers), layers)


def _merge(layers: list[FoldedLayer]) -> Sequence:
    """From the last layer to the first: each affine map into the layer before it, else into those after it."""
    done: Sequence = ()
    while layers:
        layer = layers.pop()
        before = layers[-1] if layers else None
        if not isinstance(layer, Affine):
            done = (layer, *done)
        elif isinstance(before, FoldedLinear | FoldedConv2d):
            layers[-1] = _followed_by(before, layer)
        elif isinstance(before, Affine):
            layers[-1] = _composed(before, layer)
        else:
            done = _taken_in(layer, done) or (layer, *done)
    return done


def _taken_in(affine: Affine, layers: Sequence) -> Sequence | None:
    """`layers` such that they compute on x what they did on affine(x); None where they can not take it in.

    Flattening and averaging keep an affine map; a maximum does not where the scale is negative; zeros
    that pad a convolution would have to become −shift/scale. Where the way forks, every way must take it.
    """
    if not layers:
        return None
    first, *rest = layers
    after: Sequence | None
    match first:
        case FoldedLinear():
            return (_preceded_by(first, affine), *rest)
        case FoldedConv2d(padding=0):
            return (_preceded_by(first, affine), *rest)
        case Affine() if affine.matrix.ndim == 1 or first.shift.size == affine.shift.size:
            return (_composed(affine, first), *rest)
        case spec.Flatten() | spec.AveragePool2d() | spec.GlobalAveragePool2d():
            after = _taken_in(affine, tuple(rest))
            return None if after is None else (first, *after)
        case FoldedResidual(name=name, body=body, shortcut=shortcut):
            both = _taken_in_by_all(affine, (body, shortcut))
            return None if both is None else (FoldedResidual(name, *both), *rest)
        case FoldedParallel(name=name, branches=branches):
            all_of_them = _taken_in_by_all(affine, branches)
            return None if all_of_them is None else (FoldedParallel(name, all_of_them), *rest)
        case _:
            return None


def _taken_in_by_all(affine: Affine, ways: tuple[Sequence, ...]) -> tuple[Sequence, ...] | None:
    taken = tuple(after for way in ways if (after := _taken_in(affine, way)) is not None)
    return taken if len(taken) == len(ways) else None


def _composed(first: Affine, second: Affine) -> Affine:
    """B (A x + s) + t = (B A) x + (B s + t); a flattened map repeats its channel's scale and shift."""
    positions = second.shift.size // first.shift.size
    shift = _times(second.matrix, np.repeat(first.shift, positions)) + second.shift
    if first.matrix.ndim == 2:
        return Affine(second.name, _times(second.matrix, first.matrix), shift)
    return Affine(second.name, second.matrix * np.repeat(first.matrix, positions), shift)


def _followed_by(before: Weighted, affine: Affine) -> Weighted:
    """A (Wx + b) + s = (A W) x + (A b + s)."""
    bias = _times(affine.matrix, before.bias) + affine.shift
    return replace(before, weight=_times(affine.matrix, before.weight), bias=bias)


def _preceded_by(after: Weighted, affine: Affine) -> Weighted:
    """W (A x + s) + b = (W A) x + (b + W s); a flattened map repeats its channel's."""
    channels = affine.shift.size
    weight = after.weight.reshape(len(after.weight), channels, -1)
    if affine.matrix.ndim == 1:
        taken = weight * affine.matrix[:, None]
    else:
        taken = np.einsum("ocp,cd->odp", weight, affine.matrix)
    bias = after.bias + np.einsum("ocp,c->o", weight, affine.shift)
    return replace(after, weight=taken.reshape(after.weight.shape), bias=bias)


def _times(matrix: Array, values: Array) -> Array:
    """A diagonal (C,) or whole (C, C) matrix times values whose first axis has C entries."""
    if matrix.ndim == 1:
        return matrix.reshape(-1, *[1] * (values.ndim - 1)) * values
    product: Array = np.tensordot(matrix, values, axes=1)
    return product
