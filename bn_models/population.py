"""Population statistics: E[x] and Var[x] of every batch norm layer's input, for frozen weights.

Source: Ioffe & Szegedy 2015, Algorithm 2 (lines 8 to 10); pooling by Chan, Golub & LeVeque 1979, in
float64. Both are computed aside: nothing of the network changes until `apply` puts them in place.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bn_models.architecture import batch_bounds
from bn_models.moments import BatchMean, merge_for, normalize_groups
from bn_models.networks import Network, rows_at_once
from bn_models.normalization import Statistical, evaluation, normalizations, substituted
from bn_models.randomness import derive_seed
from bn_models.sequential import measure_sequentially, sequential_samples
from bn_models.whitening import Whitening
from core.errors import JobFailed
from core.spec.normalization import Estimator, PopulationSpec

Variance = Literal["biased", "unbiased"]
MEMORY_BYTES = 2**30
"""What `pooled_sequential` may keep of activations, unless it is told otherwise."""


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


@dataclass(frozen=True)
class PopulationStatistics:
    """By layer name, in order of computation; `variance` says what the sum of squares was divided by.

    (The running covariance of a whitening layer is biased in any case.) `pooled_sequential` knows no
    batches: its `batch_size` is `samples`. `sampled`: fewer samples were measured than there are.
    `seconds` that it took are no part of the digest, nor of the card.
    """

    layers: dict[str, LayerStatistics]
    estimator: Estimator
    batch_size: int
    samples: int
    variance: Variance
    sampled: bool = False
    seconds: float = 0.0

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
            "sampled": self.sampled,
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
    memory_bytes: int = MEMORY_BYTES,
) -> PopulationStatistics:
    """The statistics of `network` over scaled `inputs` (N, *input_shape), by the estimator of `spec`.

    With `scale`, `inputs` are in the data's own units, and each chunk is scaled when it is gathered.

    `pooled` and `algorithm_2` take one pass in seeded batches of `batch_size`, each layer under the
    batch statistics of those below; `pooled_sequential` may keep activations in `memory_bytes` (see
    `bn_models.sequential`). Dropout is off; layers that are frozen stay so, and keep their statistics.
    Raises JobFailed `non_finite_statistics`, naming the layer. The network's modes and running
    averages are as before, also when something raises.
    """
    began, estimator = time.perf_counter(), spec.estimator
    if estimator == "running_average":
        statistics = running_average(network, batch_size)
    else:
        samples = spec.samples
        if estimator == "pooled_sequential":
            samples = sequential_samples(network, len(inputs), samples, memory_bytes)
        data = _Data(inputs, sample_order(len(inputs), samples, seed), scale)
        if len(data.order) < 2 and normalizations(network):
            message = f"population statistics need at least 2 samples, and there are {len(data.order)}"
            raise JobFailed("invalid_data", message)
        if estimator == "pooled_sequential":
            statistics = _measure_sequentially(network, data, memory_bytes)
        else:
            statistics = _measure_batches(network, data, estimator, batch_size)
    _require_finite(statistics)
    return replace(statistics, seconds=time.perf_counter() - began)


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


@dataclass(frozen=True)
class _Data:
    """The samples to measure: `order` are rows of `inputs`, which `scale` makes what the network takes."""

    inputs: Tensor
    order: Tensor
    scale: Callable[[Tensor], Tensor] | None

    @property
    def sampled(self) -> bool:
        return len(self.order) < len(self.inputs)

    def gather(self, rows: Tensor) -> Tensor:
        chosen = torch.index_select(self.inputs, 0, rows.to(self.inputs.device))
        return chosen if self.scale is None else self.scale(chosen)


def _measure_batches(
    network: Network, data: _Data, estimator: Literal["pooled", "algorithm_2"], batch_size: int
) -> PopulationStatistics:
    open_layers = [layer for layer in normalizations(network).values() if not layer.frozen]
    totals = {layer: merge_for(layer) if estimator == "pooled" else BatchMean() for layer in open_layers}
    samples = len(data.order)
    size = max(1, min(batch_size, samples))
    # The paper's mean over batches knows one m: its incomplete last batch is left out.
    bounds = batch_bounds(samples, size, "merge" if estimator == "pooled" else "drop") if totals else ()

    def normalize(groups: int, layer: Statistical, x: Tensor) -> Tensor:
        if layer not in totals:
            return layer.normalize_by_stored(x)
        moments, normalized = normalize_groups(layer, x, groups)
        for part in moments:
            totals[layer].add(part)
        return normalized

    with torch.inference_mode(), evaluation(network):
        at_once = max(1, rows_at_once(network, data.inputs.device) // size)
        for start, end, groups in _chunks(bounds, size, at_once):
            with substituted(network, partial(normalize, groups)):
                network(data.gather(_interleaved(data.order[start:end], groups)))
    measured = {layer: total.result() for layer, total in totals.items()}
    variance: Variance = "biased" if estimator == "pooled" else "unbiased"
    layers = _in_order(network, measured)
    return PopulationStatistics(layers, estimator, batch_size, samples, variance, data.sampled)


def _measure_sequentially(network: Network, data: _Data, memory_bytes: int) -> PopulationStatistics:
    samples = len(data.order)
    with torch.inference_mode(), evaluation(network):
        measured = measure_sequentially(
            network, lambda start, end: data.gather(data.order[start:end]), samples, data.inputs.device, memory_bytes
        )
    layers = _in_order(network, measured)
    return PopulationStatistics(layers, "pooled_sequential", samples, samples, "biased", data.sampled)


def _in_order(
    network: Network, measured: Mapping[Statistical, tuple[Tensor, Tensor, int]]
) -> dict[str, LayerStatistics]:
    """What was measured, and of frozen layers what they hold."""
    return {
        name: _statistics(layer, *measured[layer]) if layer in measured else _stored(layer)
        for name, layer in normalizations(network).items()
    }


def _statistics(layer: Statistical, mean: Tensor, spread: Tensor, n: int) -> LayerStatistics:
    if isinstance(layer, Whitening):
        return LayerStatistics(_float64(mean), _float64(layer.variance_of(spread)), n, _float64(spread))
    return LayerStatistics(_float64(mean), _float64(spread), n)


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


def _require_finite(statistics: PopulationStatistics) -> None:
    for name, layer in statistics.layers.items():
        spread = np.isfinite(layer.spread())
        bad = ~(np.isfinite(layer.mean) & (spread if spread.ndim == 1 else spread.all(1)))
        if bad.any():
            raise JobFailed(
                "non_finite_statistics",
                f"layer {name}: the {statistics.estimator} statistics of {int(bad.sum())} of {bad.size} channels are "
                "not finite; the weights grew too large: lower optimizer.learning_rate, or set optimizer.clip_norm",
            )


def _float64(values: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return array.copy()
