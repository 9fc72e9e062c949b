"""The gap: one network, the same test rows, three ways to normalize; and why they differ."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch

from bn_models.architecture import batch_bounds, flat
from bn_models.networks import Network
from bn_models.normalization import Statistical, batch_statistics, evaluation, normalizations
from bn_models.population import LayerStatistics, PopulationStatistics, using
from core.spec import layers as layer_words
from worker.trainer.data import Data
from worker.trainer.evaluation import Scores, scores_of, scores_under
from worker.trainer.health import distance
from worker.trainer.reporting import Reporter
from worker.trainer.run import Run

GapReport = dict[str, Scores]
Cause = tuple[str, str]
"""(what makes the gap, what to do)."""

LEAST_ROWS = 3
"""Fewer test rows that are answered otherwise are chance, whatever share of a small test split they are."""
SMALL_BATCH = 16
FORGOTTEN_START = 5.0  # updates × momentum after which a running average has forgotten its start (e^-5)
FEW_SAMPLES = 1000
ORDERED = 0.5  # of the way from a shuffled order, in which neighbours are alike by chance, to a sorted one


@dataclass(frozen=True)
class Verdict:
    """Is the gap large, why, and what to do; `pairs` says which two ways to normalize differ."""

    large: bool
    pairs: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()

    @property
    def cause(self) -> str | None:
        return self.causes[0] if self.causes else None

    @property
    def remedy(self) -> str | None:
        return self.remedies[0] if self.remedies else None


def gap_report(network: Network, data: Data, statistics: PopulationStatistics, batch_size: int) -> GapReport:
    """Test scores of one network under batch statistics, the running average and population statistics.

    `batch` is left out when the test split can not be cut into batches that have a variance.
    """
    batches = batch_bounds(len(data.test), batch_size, "merge")
    report = {
        "running_average": scores_of(network, data, data.test, evaluation(network)),
        "population": scores_of(network, data, data.test, using(network, statistics)),
    }
    if all(end - start > 1 for start, end in batches):
        report["batch"] = scores_under(network, data, data.test, batches, batch_statistics(network))
    return report


def record_gap(reporter: Reporter, step: int, gap: GapReport) -> None:
    """Series `bn/<statistics>_<score>`; `bn/gap_<score>`, under population minus under batch statistics; and
    `bn/gap_running_average_<score>`, under the running average minus under population statistics."""
    for name, scores in gap.items():
        for score, value in scores.items():
            reporter.record(f"bn/{name}_{score}", step, value)
    for score, value in gap["population"].items():
        if "batch" in gap:
            reporter.record(f"bn/gap_{score}", step, value - gap["batch"][score])
        reporter.record(f"bn/gap_running_average_{score}", step, gap["running_average"][score] - value)


def judge(run: Run, statistics: PopulationStatistics, gap: GapReport) -> Verdict:
    """Whether the scores differ by more than the thresholds of the order, and what explains it, likeliest first."""
    rows = len(run.data.test)
    # The running average of a recalibrated network is of other data: that it is far off is what was wanted.
    ways = ("batch", "population") if run.spec.recalibration else ("batch", "running_average", "population")
    pairs = tuple(
        f"{one} and {other}"
        for one, other in combinations(ways, 2)
        if one in gap and _differ(gap[one], gap[other], run, rows)
    )
    if not pairs:
        return Verdict(False)
    found = list(_causes(run, statistics, pairs))
    return Verdict(True, pairs, tuple(cause for cause, _ in found), tuple(remedy for _, remedy in found))


def tell_gap(reporter: Reporter, gap: GapReport, verdict: Verdict) -> None:
    """A large gap is a warning in the job's log, with its figures."""
    if not verdict.large:
        return
    score = "accuracy" if "accuracy" in gap["population"] else "r2"
    figures = ", ".join(
        f"{name.replace('_', ' ')} {score} {scores[score]:.4g} and loss {scores['loss']:.4g}"
        for name, scores in gap.items()
    )
    text = f"test scores depend on how batch norm normalizes ({figures}): {verdict.cause}; {verdict.remedy}"
    reporter.log("warning", text, {"kind": "gap", "gap": gap_json(gap, verdict)})


def gap_json(gap: GapReport, verdict: Verdict) -> dict[str, Any]:
    """What stands in a job's result and in the card."""
    scores = {name: finite(values) for name, values in gap.items()}
    return {
        **scores,
        "large": verdict.large,
        "differing": list(verdict.pairs),
        "cause": verdict.cause,
        "remedy": verdict.remedy,
        "causes": list(verdict.causes),
    }


def finite(scores: Scores) -> dict[str, float | None]:
    """Scores for JSON, which has no NaN and no infinity."""
    return {name: score if np.isfinite(score) else None for name, score in scores.items()}


def _differ(one: Scores, other: Scores, run: Run, rows: int) -> bool:
    thresholds = run.order.thresholds
    if abs(one["loss"] - other["loss"]) > thresholds.gap_loss or not np.isfinite(one["loss"] - other["loss"]):
        return True
    if "accuracy" in one:
        difference = abs(one["accuracy"] - other["accuracy"])
        return difference > thresholds.gap_accuracy and difference * rows > LEAST_ROWS - 0.5
    return abs(one["r2"] - other["r2"]) > thresholds.gap_accuracy


def _causes(run: Run, statistics: PopulationStatistics, pairs: tuple[str, ...]) -> Iterator[Cause]:
    served_differs = "batch and population" in pairs
    if "running_average and population" in pairs or (statistics.estimator == "running_average" and pairs):
        yield from _causes_of_the_running_average(run, statistics)
    if served_differs and statistics.estimator != "running_average":
        yield from _causes_of_the_batch(run, statistics)
    if pairs == ("batch and running_average",):
        yield (
            "the running average and the batch statistics lie on either side of the population statistics",
            "nothing is to be done: the model answers by population statistics",
        )


def _causes_of_the_running_average(run: Run, statistics: PopulationStatistics) -> Iterator[Cause]:
    moving = {name: layer for name, layer in normalizations(run.progress.network).items() if not layer.frozen}
    served = statistics.estimator == "running_average"
    harm = "set population.estimator to pooled" if served else "the model itself answers by population statistics"
    fewest = min(moving.values(), key=_forgotten, default=None)
    if fewest is None:
        return
    if fewest.momentum is not None and _forgotten(fewest) < FORGOTTEN_START:
        left = (1.0 - fewest.momentum) ** fewest.updates
        yield (
            f"too few updates for the momentum: after {fewest.updates} updates at momentum {fewest.momentum:g} the "
            f"running average still holds {100.0 * left:.3g} % of its start, mean 0 and variance 1",
            f"train longer or raise batch_norm.momentum; {harm}",
        )
    elif fewest.momentum is None:
        yield (
            f"batch_norm.momentum is null: the running average is the mean over all {fewest.updates} updates, those of "
            "the first weights included",
            f"set batch_norm.momentum, for instance to 0.1; {harm}",
        )
    dropout = _dropout_before_batch_norm(run.progress.network)
    if dropout is not None:
        yield (
            f"dropout before batch norm: the running average saw the variance that {dropout} makes, and it is off "
            "at inference",
            f"set network.dropout to 0, or move it behind the last batch norm; {harm}",
        )
    if fewest.momentum is not None and _forgotten(fewest) >= FORGOTTEN_START:
        name, far = _farthest(moving, statistics)
        yield (
            f"drift: the weights moved faster than the running average follows at momentum {fewest.momentum:g}; in "
            f"layer {name} its mean is {far:.3g} deviations off",
            f"lower the learning rate towards the end (schedule), or raise batch_norm.momentum; {harm}",
        )


def _causes_of_the_batch(run: Run, statistics: PopulationStatistics) -> Iterator[Cause]:
    training, network = run.spec.training, run.progress.network
    sizes = [layer.ghost_rows or training.batch_size for layer in normalizations(network).values()]
    smallest = min(training.batch_size, *sizes)
    if smallest < SMALL_BATCH:
        yield (
            f"small batch: moments of {smallest} samples are noisy, and the network was trained with that noise",
            f"use batches of {SMALL_BATCH} or more, or train the last steps with batch_norm.freeze_last_steps",
        )
    if _is_ordered(run.data):
        yield (
            "the test rows are ordered by class, so that no batch of them is a sample of the data",
            "nothing is to be done for the model: figures under batch statistics mean little here",
        )
    rows = len(run.data.training)
    if statistics.samples < min(rows, FEW_SAMPLES):
        yield (
            f"the population statistics are of {statistics.samples} of {rows} training samples",
            "set population.samples higher, or to null for all",
        )
    yield (
        "training and test rows are distributed otherwise, or the weights still change much from step to step",
        "compare their sources; recalibrate the model on data like that which it will meet; lower the learning rate "
        "towards the end",
    )


def _forgotten(layer: Statistical) -> float:
    return layer.updates * (layer.momentum if layer.momentum is not None else 1.0)


def _farthest(layers: dict[str, Statistical], statistics: PopulationStatistics) -> tuple[str, float]:
    """The layer whose running mean is the farthest from its population's, in deviations."""
    found = {
        name: distance(
            LayerStatistics(layer.running_mean.double().cpu().numpy(), layer.running_var.double().cpu().numpy(), 0),
            statistics.layers[name],
        )["mean"]
        for name, layer in layers.items()
    }
    name = max(found, key=lambda key: found[key] or 0.0)
    return name, found[name] or 0.0


def _dropout_before_batch_norm(network: Network) -> str | None:
    """The name of the first dropout layer that a layer with statistics follows."""
    first = None
    for item in flat(network.placed):
        layer = item.layer
        if isinstance(layer, layer_words.Dropout) and layer.probability > 0.0:
            first = first or layer.name
        elif first and (isinstance(layer, STATISTICAL) or (isinstance(layer, layer_words.LSTM) and layer.batch_norm)):
            return first
    return None


STATISTICAL = (layer_words.BatchNorm, layer_words.Whitening)


def _is_ordered(data: Data) -> bool:
    """Are neighbouring test rows of one class far more often than chance would have it?"""
    targets = data.test.targets if data.test.rows is None else data.test.targets[data.test.rows]
    if targets.dtype != torch.int64 or len(targets) < SMALL_BATCH:
        return False
    alike = float((targets[1:] == targets[:-1]).double().mean())
    shares = torch.bincount(targets).double() / len(targets)
    chance = float(shares.square().sum())
    return chance < 1.0 and alike > chance + ORDERED * (1.0 - chance)
