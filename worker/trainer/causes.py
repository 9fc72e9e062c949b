"""Why a network scores otherwise under batch statistics, the running average and population statistics."""

from collections.abc import Iterator
from math import prod

import torch

from bn_models.architecture import batch_bounds, flat
from bn_models.architecture.statistics import statistical_options
from bn_models.networks import Network
from bn_models.normalization import Statistical, batch_statistics, normalizations
from bn_models.population import PopulationStatistics
from core.spec import layers as words
from worker.messages import Thresholds
from worker.trainer.data import Data
from worker.trainer.evaluation import Scores, scores_under
from worker.trainer.health import distance, stored
from worker.trainer.run import Run

GapReport = dict[str, Scores]
Pairs = list[tuple[str, str]]
Cause = tuple[str, str]
"""(what makes the gap, what to do)."""

LEAST_ROWS = 3
"""Fewer test rows that are answered otherwise are chance, whatever share of a small test split they are."""
FORGOTTEN_START = 5.0  # updates × momentum after which a running average has forgotten its start (e^-5)
FEW_SAMPLES = 1000
WIDER = 8
"""Batches that are so many times as large have so many times less noise in their moments."""
LEAST_WIDER = 3
WIDE_ELEMENTS = 2**28  # of one activation: a job that has trained well must not die of a question about it
LEAST_ORDERED_ROWS = 16
ORDERED = 0.5  # of the way from a shuffled order, in which neighbours are alike by chance, to a sorted one


def differ(one: Scores, other: Scores, thresholds: Thresholds, rows: int) -> bool:
    """Are two scores of the same `rows` test rows apart by more than the thresholds? A score that is no number is."""
    if not abs(one["loss"] - other["loss"]) <= thresholds.gap_loss:
        return True
    if "accuracy" not in one:
        return abs(one["r2"] - other["r2"]) > thresholds.gap_accuracy
    difference = abs(one["accuracy"] - other["accuracy"])
    return difference > thresholds.gap_accuracy and difference * rows > LEAST_ROWS - 0.5


def explain(run: Run, statistics: PopulationStatistics, gap: GapReport, pairs: Pairs) -> list[Cause]:
    """What explains that the scores of these pairs differ, likeliest first; at least one cause.

    The population is what the other two are held against: where batch statistics score as it does, there is nothing
    to say of batches, however far the running average is from both. Where it is between them, the farther one counts.
    """
    served_running = statistics.estimator == "running_average"
    far = {one for one, other in pairs if other == "population"} or {_farther(gap, run.order.thresholds)}
    found: list[Cause] = []
    if "running_average" in far or served_running:
        found += _of_the_running_average(run, statistics)
    if "batch" in far and not (served_running and found):
        found += _of_the_batch(run, statistics, gap)
    return found or list(_of_the_batch(run, statistics, gap))


def _of_the_running_average(run: Run, statistics: PopulationStatistics) -> Iterator[Cause]:
    moving = {name: layer for name, layer in normalizations(run.progress.network).items() if not layer.frozen}
    served = statistics.estimator == "running_average"
    harm = "set population.estimator to pooled" if served else "the model itself answers by population statistics"
    if not moving:
        return
    fewest = min(moving.values(), key=_weight_of_updates)
    followed = _weight_of_updates(fewest) >= FORGOTTEN_START
    if fewest.momentum is not None and not followed:
        left = (1.0 - fewest.momentum) ** fewest.updates
        yield (
            f"too few updates for the momentum: after {fewest.updates} updates at momentum {fewest.momentum:g} the "
            f"running average still holds {100.0 * left:.3g} % of its start, mean 0 and variance 1",
            f"train longer or raise batch_norm.momentum; {harm}",
        )
    if fewest.momentum is None:
        yield (
            f"batch_norm.momentum is null: the running average is the mean over all {fewest.updates} updates, those of "
            "the first weights included",
            f"set batch_norm.momentum, for instance to 0.1; {harm}",
        )
    dropout = _dropout_before_statistics(run.progress.network)
    if dropout is not None:
        yield (
            f"dropout before batch norm: the running average is of the variance that {dropout} makes in training, and "
            "dropout is off at inference",
            f"set network.dropout to 0, or put it behind the last batch norm; {harm}",
        )
    if fewest.momentum is not None and followed:
        name, far = _farthest(moving, statistics)
        yield (
            f"drift: the weights moved faster than the running average follows at momentum {fewest.momentum:g}; the "
            f"mean of layer {name} is {far:.3g} deviations off",
            f"lower the learning rate towards the end (schedule), or raise batch_norm.momentum; {harm}",
        )


def _of_the_batch(run: Run, statistics: PopulationStatistics, gap: GapReport) -> list[Cause]:
    shift = (
        "the test rows are not distributed as the training rows are, or the network fits its training rows too closely",
        "compare where both come from; more or augmented training data, or weight decay; recalibrate the model on data "
        "like that which it will meet",
    )
    recognized = list(_recognized_in_the_batch(run, statistics, gap)) if "batch" in gap else []
    return recognized or [shift]


def _recognized_in_the_batch(run: Run, statistics: PopulationStatistics, gap: GapReport) -> Iterator[Cause]:
    training, network, data = run.spec.training, run.progress.network, run.data
    sizes = [layer.ghost_rows or training.batch_size for layer in normalizations(network).values()]
    size = min(training.batch_size, *sizes)
    if _is_ordered(data):
        yield (
            "the test rows are ordered by class, so that no batch of them is a sample of the data",
            "nothing is to be done for the model: figures under batch statistics mean little here",
        )
    score = _most_different(gap["batch"], gap["population"], run.order.thresholds)
    before = abs(gap["batch"][score] - gap["population"][score])
    times, wide = _in_wider_batches(run)
    after = abs(wide[score] - gap["population"][score]) if wide else before
    if size < training.batch_size or after < before / 2:
        told = f" (in batches of {times} times as many rows the {score} differs by {after:.3g}, not {before:.3g})"
        worse = gap["batch"]["loss"] > gap["population"]["loss"]
        yield (
            f"small batch: moments of {size} samples are noisy{told if size == training.batch_size else ''}",
            "nothing is to be done for the model: it answers by population statistics, which have no such noise"
            if worse
            else "train with larger batches, or the last steps by population statistics (batch_norm.freeze_last_steps)",
        )
    rows = len(data.training)
    if statistics.samples < min(rows, FEW_SAMPLES):
        yield (
            f"the population statistics are of {statistics.samples} of {rows} training samples",
            "set population.samples higher, or to null for all",
        )


def _farther(gap: GapReport, thresholds: Thresholds) -> str:
    """Whether batch statistics or the running average score more otherwise than the population."""
    shares = {name: max(_shares(gap[name], gap["population"], thresholds).values()) for name in gap}
    return max(shares, key=shares.__getitem__)


def _most_different(one: Scores, other: Scores, thresholds: Thresholds) -> str:
    """The score that is the farthest beyond its threshold: the loss, or accuracy or r²."""
    shares = _shares(one, other, thresholds)
    return max(shares, key=shares.__getitem__)


def _shares(one: Scores, other: Scores, thresholds: Thresholds) -> dict[str, float]:
    """How far two scores are apart, in thresholds."""
    beside = "accuracy" if "accuracy" in one else "r2"
    return {
        "loss": abs(one["loss"] - other["loss"]) / thresholds.gap_loss,
        beside: abs(one[beside] - other[beside]) / thresholds.gap_accuracy,
    }


def _in_wider_batches(run: Run) -> tuple[int, Scores | None]:
    """(how many times as wide, scores); None where wider batches do not fit the memory or the test split."""
    data, network, size = run.data, run.progress.network, run.spec.training.batch_size
    widest = max(prod(item.output_shape) for item in flat(network.placed))
    times = min(WIDER, WIDE_ELEMENTS // (widest * size), len(data.test) // size)
    if times < LEAST_WIDER:
        return times, None
    bounds = batch_bounds(len(data.test), times * size, "merge")
    return times, scores_under(network, data, data.test, bounds, batch_statistics(network))


def _weight_of_updates(layer: Statistical) -> float:
    return layer.updates * (layer.momentum if layer.momentum is not None else 1.0)


def _farthest(layers: dict[str, Statistical], statistics: PopulationStatistics) -> tuple[str, float]:
    """The layer whose running mean is the farthest from its population's, in deviations."""
    found = {name: distance(stored(layer), statistics.layers[name])["mean"] or 0.0 for name, layer in layers.items()}
    name = max(found, key=found.__getitem__)
    return name, found[name]


def _dropout_before_statistics(network: Network) -> str | None:
    """The name of the first dropout layer that a layer with statistics follows."""
    listed = [item.layer for item in flat(network.placed)]
    for index, layer in enumerate(listed):
        if isinstance(layer, words.Dropout) and layer.probability > 0.0:
            return layer.name if any(statistical_options(later) for later in listed[index:]) else None
    return None


def _is_ordered(data: Data) -> bool:
    """Are neighbouring test rows of one class far more often than chance would have it?"""
    targets = data.test.targets if data.test.rows is None else data.test.targets[data.test.rows]
    if targets.dtype != torch.int64 or len(targets) < LEAST_ORDERED_ROWS:
        return False
    alike = float((targets[1:] == targets[:-1]).double().mean())
    chance = float((torch.bincount(targets).double() / len(targets)).square().sum())
    return chance < 1.0 and alike > chance + ORDERED * (1.0 - chance)
