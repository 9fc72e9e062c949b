"""Population statistics: E[x] and Var[x] of every batch norm layer's input, for frozen weights.

Source: Ioffe & Szegedy 2015, Algorithm 2 (lines 8 to 10); pooling by Chan, Golub & LeVeque 1979, in
float64. Both are computed aside: nothing of the network changes until `apply` puts them in place.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bn_models.architecture import batch_bounds
from bn_models.moments import BatchMean, ChanMerge, normalize_groups
from bn_models.networks import Network, rows_at_once
from bn_models.normalization import Statistical, evaluation, normalizations, substituted
from bn_models.randomness import derive_seed
from bn_models.whitening import Whitening
from core.errors import JobFailed
from core.spec.normalization import Estimator, PopulationSpec

Variance = Literal["biased", "unbiased"]


@dataclass(frozen=True)
class LayerStatistics:
    """float64, one a channel. `n`: values a channel behind them (N·H·W); 0 for a running average.

    `covariance` (C, g) of a whitening layer: row i has those of channel i with the channels of its own
    group, without eps; `variance` is its diagonal.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    n: int
    covariance: NDArray[np.float64] | None = None

    def spread(self) -> NDArray[np.float64]:
        """What the layer stores beside the mean: the covariance if it has one, else the variance."""
        return self.variance if self.covariance is None else self.covariance
    covariance: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class PopulationStatistics:
    """By layer name, in order of computation; `variance` says what the sum of squares was divided by."""

    layers: dict[str, LayerStatistics]
    estimator: Estimator
    batch_size: int
    samples: int
    variance: Variance

    def digest(self) -> str:
        """SHA-256 over the settings and every layer's name, n and bytes: what `statistics_sha256` means."""
        facts = f"{self.estimator}|{self.batch_size}|{self.samples}|{self.variance}"
        digest = hashlib.sha256(facts.encode())
        for name, layer in self.layers.items():
            digest.update(f"\n{name}|{layer.n}|{layer.mean.size}\n".encode())
            digest.update(layer.mean.astype("<f8").tobytes() + layer.spread().astype("<f8").tobytes())
        return digest.hexdigest()

    def as_json(self) -> dict[str, Any]:
        """For a model's card: the settings, and per layer its mean, variance and n as lists."""
        layers = {name: _layer_as_json(layer) for name, layer in self.layers.items()}
        return {
            "estimator": self.estimator,
            "batch_size": self.batch_size,
            "samples": self.samples,
            "variance": self.variance,
            "sha256": self.digest(),
            "layers": layers,
        }


def measure(
    network: Network,
    inputs: Tensor,
    spec: PopulationSpec,
    batch_size: int,
    seed: int,
    scale: Callable[[Tensor], Tensor] | None = None,
) -> PopulationStatistics:
    """The statistics of `network` over scaled `inputs` (N, *input_shape), by the estimator of `spec`.

    With `scale`, `inputs` are in the data's own units, and each chunk is scaled when it is gathered.

    One pass in seeded batches of `batch_size`; each layer is measured under the batch statistics of
    those below; dropout is off. Raises JobFailed `non_finite_statistics`, naming the layer. The
    network's modes and running averages are as before, also when something raises.
    """
    if spec.estimator == "running_average":
        statistics = running_average(network, batch_size)
    else:
        order = sample_order(len(inputs), spec.samples, seed)
        statistics = _measure_batches(network, inputs, order, spec.estimator, batch_size, scale or _as_it_is)
    _require_finite(statistics)
    return statistics


def sample_order(rows: int, samples: int | None, seed: int) -> Tensor:
    """Which of `rows` samples are measured (None: all), in the order in which batches are cut from them."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "population"))
    return torch.randperm(rows, generator=generator)[: samples or rows]


def running_average(network: Network, batch_size: int) -> PopulationStatistics:
    """What training kept, in float64; no sample is looked at."""
    layers = {name: _stored(layer) for name, layer in normalizations(network).items()}
    return PopulationStatistics(layers, "running_average", batch_size, 0, "unbiased")


def apply(network: Network, statistics: PopulationStatistics) -> None:
    """Puts the statistics in place of the running averages, which evaluation then normalizes by."""
    layers = normalizations(network)
    if layers.keys() != statistics.layers.keys():
        raise ValueError(f"statistics of {sorted(statistics.layers)} do not fit batch norm layers {sorted(layers)}")
    for name, layer in layers.items():
        _put(layer, statistics.layers[name])


def freeze(network: Network, statistics: PopulationStatistics, names: Iterable[str]) -> None:
    """These layers normalize by their part of `statistics` from now on, in training too, and move nothing."""
    layers = normalizations(network)
    for name in names:
        _put(layers[name], statistics.layers[name])
        layers[name].freeze(statistics.layers[name].n)


@contextmanager
def using(network: Network, statistics: PopulationStatistics) -> Iterator[None]:
    """Evaluation (dropout off) by these statistics; then modes and running averages are as before."""
    layers = normalizations(network).values()
    before = [(layer, layer.running_mean.clone(), layer.running_spread.clone()) for layer in layers]
    try:
        apply(network, statistics)
        with evaluation(network):
            yield
    finally:
        for layer, mean, spread in before:
            layer.running_mean.copy_(mean)
            layer.running_spread.copy_(spread)


def _put(layer: Statistical, statistics: LayerStatistics) -> None:
    layer.running_mean.copy_(torch.from_numpy(statistics.mean))
    layer.running_spread.copy_(torch.from_numpy(statistics.spread()))


def _stored(layer: Statistical) -> LayerStatistics:
    """What a layer holds, in float64; `n` is 0 unless it was frozen."""
    covariance = layer.running_covariance if isinstance(layer, Whitening) else None
    mean, variance = _float64(layer.running_mean), _float64(layer.running_var)
    return LayerStatistics(mean, variance, layer.frozen_n, None if covariance is None else _float64(covariance))


def _layer_as_json(layer: LayerStatistics) -> dict[str, Any]:
    values: dict[str, Any] = {"mean": layer.mean.tolist(), "variance": layer.variance.tolist(), "n": layer.n}
    return values if layer.covariance is None else values | {"covariance": layer.covariance.tolist()}


def _measure_batches(
    network: Network,
    inputs: Tensor,
    order: Tensor,
    estimator: Literal["pooled", "algorithm_2"],
    batch_size: int,
    scale: Callable[[Tensor], Tensor],
) -> PopulationStatistics:
    names = {layer: name for name, layer in normalizations(network).items()}
    totals = {layer: ChanMerge() if estimator == "pooled" else BatchMean() for layer in names}
    if names and len(order) < 2:
        raise JobFailed("invalid_data", f"population statistics need at least 2 samples, and there are {len(order)}")
    size = max(1, min(batch_size, len(order)))
    # The paper's mean over batches knows one m: its incomplete last batch is left out.
    bounds = batch_bounds(len(order), size, "merge" if estimator == "pooled" else "drop") if names else ()

    def normalize(groups: int, layer: Statistical, x: Tensor) -> Tensor:
        moments, normalized = normalize_groups(layer, x, groups)
        totals[layer].add(moments)
        return normalized

    with torch.inference_mode(), evaluation(network):
        for start, end, groups in _chunks(bounds, size, _groups_at_once(network, inputs, size)):
            rows = _interleaved(order[start:end], groups).to(inputs.device)
            with substituted(network, partial(normalize, groups)):
                network(scale(torch.index_select(inputs, 0, rows)))
    layers = {names[layer]: _statistics(*total.result()) for layer, total in totals.items()}
    variance: Variance = "biased" if estimator == "pooled" else "unbiased"
    return PopulationStatistics(layers, estimator, batch_size, len(order), variance)


def _as_it_is(inputs: Tensor) -> Tensor:
    return inputs


def _statistics(mean: Tensor, variance: Tensor, n: int) -> LayerStatistics:
    return LayerStatistics(_float64(mean), _float64(variance), n)


def _chunks(bounds: tuple[tuple[int, int], ...], size: int, at_once: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, number of batches) of runs of neighbouring batches of `size`; another size goes alone."""
    full = sum(end - start == size for start, end in bounds)
    for first in range(0, full, at_once):
        count = min(at_once, full - first)
        yield bounds[first][0], bounds[first + count - 1][1], count
    for start, end in bounds[full:]:
        yield start, end, 1


def _interleaved(order: Tensor, groups: int) -> Tensor:
    """Row i·groups + j becomes sample i of batch j, so that (batch, groups·C) is a view of the activations."""
    return order.view(groups, -1).t().reshape(-1)


def _groups_at_once(network: Network, inputs: Tensor, batch_size: int) -> int:
    """How many batches go through the network together, in bounded memory."""
    return max(1, rows_at_once(network, inputs.device) // batch_size)


def _require_finite(statistics: PopulationStatistics) -> None:
    for name, layer in statistics.layers.items():
        bad = ~(np.isfinite(layer.mean) & np.isfinite(layer.variance))
        if bad.any():
            raise JobFailed(
                "non_finite_statistics",
                f"layer {name}: the {statistics.estimator} statistics of {int(bad.sum())} of {bad.size} channels are "
                "not finite; the weights grew too large: lower optimizer.learning_rate, or set optimizer.clip_norm",
            )


def _float64(values: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return array.copy()
