"""Frozen layers: what each layer of the list computes once its parameters and statistics are fixed, in float64.

Source: Ioffe & Szegedy 2015, Algorithm 2, line 11:
y = gamma/sqrt(Var[x] + eps) · x + (beta − gamma·E[x]/sqrt(Var[x] + eps)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bn_models.population import LayerStatistics, PopulationStatistics
from bn_models.whitening import newton
from core.spec import layers as spec
from core.spec.normalization import AffineOptions

Array = NDArray[np.float64]
State = Mapping[str, NDArray[np.floating]]


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
    """y = matrix · x + shift over the channels; a matrix (C,) is the diagonal of one, as batch norm has it."""

    name: str
    matrix: Array
    shift: Array


@dataclass(frozen=True)
class SampleNorm:
    """Layer, group or instance norm: by the moments of each sample; gamma and beta one a channel, if learned."""

    layer: spec.LayerNorm | spec.GroupNorm | spec.InstanceNorm
    gamma: Array | None
    beta: Array | None

    @property
    def name(self) -> str:
        return self.layer.name


@dataclass(frozen=True)
class StepAffines:
    """The frozen batch norms of an LSTM, one row a time step: gates (T, 4U), cells (T, U).

    gates_t = input_scale_t · W_x x_t + hidden_scale_t · W_h h + shift_t, and tanh sees cell_scale_t · c + cell_shift_t.
    """

    input_scale: Array
    hidden_scale: Array
    shift: Array
    cell_scale: Array
    cell_shift: Array


@dataclass(frozen=True)
class FoldedLSTM:
    """input_weight (4U, F), hidden_weight (4U, U), bias (4U,); gates in the order i, f, g, o.

    With `steps`, the bias is inside of their shift.
    """

    name: str
    input_weight: Array
    hidden_weight: Array
    bias: Array
    steps: StepAffines | None
    whole_sequence: bool


@dataclass(frozen=True)
class FoldedResidual:
    name: str
    body: tuple[FoldedLayer, ...]
    shortcut: tuple[FoldedLayer, ...]


@dataclass(frozen=True)
class FoldedParallel:
    name: str
    branches: tuple[tuple[FoldedLayer, ...], ...]


Weighted = FoldedLinear | FoldedConv2d
Unchanged = (
    spec.Activation
    | spec.LocalResponseNorm
    | spec.MaxPool2d
    | spec.AveragePool2d
    | spec.GlobalAveragePool2d
    | spec.Flatten
    | spec.ImageRows
)
FoldedSimple = Weighted | Affine | SampleNorm | FoldedLSTM | Unchanged
FoldedLayer = FoldedSimple | FoldedResidual | FoldedParallel


def freeze(layer: spec.SimpleLayer, state: State, statistics: PopulationStatistics | None) -> FoldedSimple:
    """The frozen form of one layer. Raises ValueError when its statistics are missing, and for dropout."""
    match layer:
        case spec.Linear():
            return FoldedLinear(layer.name, *_weight_and_bias(layer, state))
        case spec.Conv2d():
            return FoldedConv2d(layer.name, *_weight_and_bias(layer, state), layer.stride, layer.padding)
        case spec.BatchNorm():
            return _affine_of_batch_norm(layer, state, _of(layer.name, statistics))
        case spec.Whitening():
            return _affine_of_whitening(layer, state, _of(layer.name, statistics))
        case spec.LayerNorm() | spec.GroupNorm() | spec.InstanceNorm():
            return SampleNorm(layer, *_learned(layer.name, layer.options, state))
        case spec.LSTM():
            return _frozen_lstm(layer, state, statistics)
        case spec.Dropout():
            raise ValueError(f"layer {layer.name}: dropout has no frozen form")
        case _:
            return layer


def inverse_square_root(covariance: Array, eps: float, iterations: int) -> Array:
    """The block-diagonal matrix (C, C) that whitens, from a covariance (C, g) stored by groups of g channels.

    Each group by Newton's iteration as in training, `bn_models.whitening.newton`, in float64.
    """
    channels, size = covariance.shape
    whole = np.zeros((channels, channels))
    for start in range(0, channels, size):
        group = slice(start, min(start + size, channels))
        width = group.stop - start
        whole[group, group] = newton(torch.from_numpy(covariance[group, :width]), eps, iterations).numpy()
    return whole


def _affine_of_batch_norm(layer: spec.BatchNorm, state: State, population: LayerStatistics) -> Affine:
    gamma, beta = _learned(layer.name, layer.options, state)
    return Affine(layer.name, *_scale_and_shift(population, layer.options.eps, gamma, beta))


def _affine_of_whitening(layer: spec.Whitening, state: State, population: LayerStatistics) -> Affine:
    if population.covariance is None:
        raise ValueError(f"layer {layer.name} whitens, and its population statistics have no covariance")
    gamma, beta = _learned(layer.name, layer.options, state)
    matrix = inverse_square_root(population.covariance, layer.options.eps, layer.options.iterations)
    matrix = matrix if gamma is None else gamma[:, None] * matrix
    shift = -matrix @ population.mean
    return Affine(layer.name, matrix, shift if beta is None else shift + beta)


def _scale_and_shift(
    population: LayerStatistics, eps: float, gamma: Array | None, beta: Array | None
) -> tuple[Array, Array]:
    scale = 1.0 / np.sqrt(population.variance + eps)
    scale = scale if gamma is None else gamma * scale
    shift = -population.mean * scale
    return scale, shift if beta is None else shift + beta


def _frozen_lstm(layer: spec.LSTM, state: State, statistics: PopulationStatistics | None) -> FoldedLSTM:
    input_weight = _float64(state[f"{layer.name}.input.weight"])
    hidden_weight = _float64(state[f"{layer.name}.hidden.weight"])
    bias = _float64(state[f"{layer.name}.bias"])
    steps = None
    if layer.batch_norm is not None:
        inputs = _over_time(f"{layer.name}.input_norm", layer.batch_norm, state, statistics)
        hidden = _over_time(f"{layer.name}.hidden_norm", layer.batch_norm, state, statistics)
        cells = _over_time(f"{layer.name}.cell_norm", layer.batch_norm, state, statistics)
        steps = StepAffines(inputs[0], hidden[0], inputs[1] + hidden[1] + bias, *cells)
    return FoldedLSTM(layer.name, input_weight, hidden_weight, bias, steps, whole_sequence=layer.outputs == "sequence")


def _over_time(
    name: str, options: AffineOptions, state: State, statistics: PopulationStatistics | None
) -> tuple[Array, Array]:
    """Scale and shift (T, channels) of `<name>.step0` … with the gamma and beta that all steps share."""
    gamma, beta = (_float64(state[key]) if key in state else None for key in (f"{name}.gamma", f"{name}.beta"))
    measured = [_of(f"{name}.step0", statistics)]
    while statistics is not None and f"{name}.step{len(measured)}" in statistics.layers:
        measured.append(statistics.layers[f"{name}.step{len(measured)}"])
    scales, shifts = zip(*(_scale_and_shift(step, options.eps, gamma, beta) for step in measured), strict=True)
    return np.stack(scales), np.stack(shifts)


def _of(name: str, statistics: PopulationStatistics | None) -> LayerStatistics:
    if statistics is None or name not in statistics.layers:
        raise ValueError(f"layer {name} has no population statistics: measure them before folding")
    return statistics.layers[name]


def _learned(name: str, options: AffineOptions, state: State) -> tuple[Array | None, Array | None]:
    """gamma and beta, each None unless it is learned."""
    gamma = _float64(state[f"{name}.gamma"]) if options.affine in (True, "gamma") else None
    beta = _float64(state[f"{name}.beta"]) if options.affine in (True, "beta") else None
    return gamma, beta


def _weight_and_bias(layer: spec.Linear | spec.Conv2d, state: State) -> tuple[Array, Array]:
    weight = _float64(state[f"{layer.name}.weight"])
    return weight, _float64(state[f"{layer.name}.bias"]) if layer.bias else np.zeros(len(weight))


def _float64(values: NDArray[np.floating]) -> Array:
    return np.asarray(values, dtype=np.float64)
