"""How each normalization layer with statistics stands: its parameters, its moments, channels that are ill."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bn_models.architecture import batch_bounds
from bn_models.networks import Network
from bn_models.normalization import Statistical, normalizations
from bn_models.population import LayerStatistics, PopulationStatistics
from bn_models.whitening import Whitening
from core.spec import TrainingSpec
from worker.messages import LayersReported, Thresholds
from worker.trainer.run import Run

Array = NDArray[np.float64]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SHOWN_CHANNELS = 16
"""So many ill channels of a layer are named; all are counted."""
SHOWN_LAYERS = 5
CONSTANT = ".hidden_norm.step0"
"""The hidden state of an LSTM begins at 0, so that its first product never varies: no channel is dead of
that, and none explodes, however large gamma / √eps."""


def report_layers(run: Run, step: int) -> None:
    """Tells how the layers stand at an evaluation, by their running averages."""
    _send(run, step, step, None)


def report_at_the_end(run: Run, statistics: PopulationStatistics) -> None:
    """Tells how the layers stand with the statistics that are published, and warns of what is ill."""
    progress = run.progress
    trained: int | None = progress.monitor.best_step if progress.best is not None else progress.step
    if run.spec.recalibration is not None:
        trained = None  # another job's steps
    for line in _complaints(_send(run, progress.step, trained, statistics)):
        run.reporter.log("warning", line)


def _send(run: Run, step: int, trained: int | None, statistics: PopulationStatistics | None) -> list[dict[str, Any]]:
    layers = reports(run, trained, statistics)
    if layers:
        run.reporter.sink.send(LayersReported(step, statistics is not None, layers))
    return layers


def reports(run: Run, trained: int | None, statistics: PopulationStatistics | None) -> list[dict[str, Any]]:
    """One for each layer with statistics, in order of computation. `trained`: steps behind the weights, if known.

    Moments are those of `statistics`, or of the running averages.
    """
    network, thresholds = run.progress.network, run.order.thresholds
    told = []
    for name, layer in normalizations(network).items():
        running = stored(layer)
        moments = running if statistics is None else statistics.layers[name]
        told.append(
            {
                "name": name,
                "kind": "whitening" if isinstance(layer, Whitening) else "batch_norm",
                "channels": moments.mean.size,
                "statistics": "running_average" if statistics is None else statistics.estimator,
                "n": moments.n if statistics is not None else None,
                "frozen": layer.frozen,
                "updates": layer.updates,
                "expected_updates": (
                    expected_updates(layer, run.spec.training, len(run.data.training), trained)
                    if trained is not None
                    else None
                ),
                **_figures(network, name, layer, moments, thresholds),
                "running_average_distance": distance(running, moments) if statistics is not None else None,
            }
        )
    return told


def stored(layer: Statistical) -> LayerStatistics:
    """What the layer holds: its running average, in float64."""
    return LayerStatistics(_float64(layer.running_mean), _float64(layer.running_var), 0)


def distance(running: LayerStatistics, population: LayerStatistics) -> dict[str, float | None]:
    """How far the running average is from the population: `mean`, the root mean square over the channels of the
    difference in deviations; `variance`, that of the variances' natural logarithm's."""
    deviation = np.sqrt(np.maximum(population.variance, np.finfo(np.float64).tiny))
    means = (running.mean - population.mean) / deviation
    floor = np.finfo(np.float64).tiny
    logarithms = np.log(np.maximum(running.variance, floor)) - np.log(np.maximum(population.variance, floor))
    return {"mean": _finite(_root_mean_square(means)), "variance": _finite(_root_mean_square(logarithms))}


def expected_updates(layer: Statistical, training: TrainingSpec, rows: int, trained: int) -> int:
    """Updates of the running average that `trained` steps make: one a step, or one a ghost batch; none once frozen."""
    steps = min(trained, training.steps - layer.options.freeze_last_steps) if layer.frozen else trained
    ghost = layer.options.virtual_batch_size
    if ghost is None:
        return steps
    bounds = batch_bounds(rows, training.batch_size, training.tail)
    groups = [max(1, (end - start) // ghost) for start, end in bounds]
    epochs, rest = divmod(steps, len(groups))
    return epochs * sum(groups) + sum(groups[:rest])


def summary(values: Array) -> dict[str, float | None]:
    """What a reader wants of many channels; a figure that is not finite is null."""
    percentiles = zip(QUANTILES, np.quantile(values, QUANTILES).tolist(), strict=True)
    figures = {"min": float(values.min()), "max": float(values.max()), "mean": float(values.mean())}
    figures |= {f"p{round(100 * share)}": value for share, value in percentiles}
    return {name: _finite(value) for name, value in figures.items()}


def affine_of(network: Network, name: str, layer: Statistical) -> tuple[Array | None, Array | None]:
    """(gamma, beta) that follow the layer's normalization: its own, or those that the steps of an LSTM share."""
    owner = network.get_submodule(name.rpartition(".")[0]) if name.rpartition(".")[2].startswith("step") else layer
    parts = [getattr(layer, part) if getattr(layer, part) is not None else getattr(owner, part, None) for part in PARTS]
    gamma, beta = (_float64(part) if isinstance(part, Tensor) else None for part in parts)
    return gamma, beta


PARTS = ("gamma", "beta")


def _figures(
    network: Network, name: str, layer: Statistical, moments: LayerStatistics, thresholds: Thresholds
) -> dict[str, Any]:
    gamma, beta = affine_of(network, name, layer)
    variance = np.maximum(moments.variance, 0.0)
    gain = (np.ones_like(variance) if gamma is None else gamma) / np.sqrt(variance + layer.eps)
    output = np.abs(gain) * np.sqrt(variance)
    off_centre = np.abs(moments.mean) / np.sqrt(variance + layer.eps)
    dead = (variance < thresholds.dead_variance * layer.eps) | (output < thresholds.dead_output)
    exploding = (np.abs(gain) > thresholds.exploding_gain) | (off_centre > thresholds.exploding_mean)
    if name.endswith(CONSTANT):
        dead[:] = exploding[:] = False
    return {
        "gamma": None if gamma is None else summary(gamma),
        "beta": None if beta is None else summary(beta),
        "mean": summary(moments.mean),
        "variance": summary(moments.variance),
        "gain": summary(gain),
        "dead": _ill(dead),
        "exploding": _ill(exploding & ~dead),
    }


def _ill(channels: NDArray[np.bool_]) -> dict[str, Any]:
    return {"count": int(channels.sum()), "channels": np.flatnonzero(channels)[:SHOWN_CHANNELS].tolist()}


def _complaints(layers: list[dict[str, Any]]) -> list[str]:
    """One line for each kind of illness, with the layers that have it and what to do."""
    remedies = {
        "dead": "they carry next to nothing: a narrower layer would do, or initial weights, inputs or learning rate "
        "are off",
        "exploding": "small changes of their input become large ones: look for inputs that are not scaled, or set "
        "optimizer.clip_norm or a larger batch_norm.eps",
    }
    lines = []
    for illness, remedy in remedies.items():
        found = [layer for layer in layers if layer[illness]["count"]]
        if found:
            named = _list(f"{layer[illness]['count']} of {layer['channels']} of {layer['name']}" for layer in found)
            lines.append(f"{illness} channels: {named}; {remedy}")
    astray = [layer for layer in layers if layer["expected_updates"] not in (None, layer["updates"])]
    if astray:
        named = _list(f"{layer['name']} {layer['updates']} for {layer['expected_updates']}" for layer in astray)
        lines.append(f"running averages with another number of updates than the training had: {named}")
    return lines


def _list(parts: Any) -> str:
    listed = list(parts)
    more = f" and {len(listed) - SHOWN_LAYERS} more" if len(listed) > SHOWN_LAYERS else ""
    return ", ".join(listed[:SHOWN_LAYERS]) + more


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _float64(values: Tensor) -> Array:
    array: Array = values.detach().to("cpu").double().numpy()
    return array
