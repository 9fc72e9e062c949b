"""Test scores of inputs that are scaled or shifted: how a network bears data that training has not seen."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from bn_models.architecture import batch_bounds
from bn_models.normalization import batch_statistics, evaluation
from bn_models.population import PopulationStatistics, using
from core.spec.evaluation import InputShift
from worker.trainer.data import Split
from worker.trainer.evaluation import Scores, scores_of, scores_under
from worker.trainer.gap import finite
from worker.trainer.run import Run


def scores_of_shifts(run: Run, statistics: PopulationStatistics | None) -> list[dict[str, Any]]:
    """One entry for each shift that the spec asks for, recorded as series too.

    `served`: as a published model would answer; `batch`: by the statistics of each batch, where there are layers
    that have any and the test split can be cut into batches.
    """
    return [_measured(run, statistics, shift) for shift in run.spec.evaluation.input_shifts]


def shifted(split: Split, shift: InputShift) -> Split:
    """The split with its scaled inputs times `scale` plus `shift`."""
    scaler = split.scaler

    def scale(values: Tensor) -> Tensor:
        return (values if scaler is None else scaler(values)) * shift.scale + shift.shift

    return replace(split, scaler=scale)


def _measured(run: Run, statistics: PopulationStatistics | None, shift: InputShift) -> dict[str, Any]:
    network, data, step = run.progress.network, run.data, run.progress.step
    split = shifted(data.test, shift)
    mode = evaluation(network) if statistics is None else using(network, statistics)
    served = scores_of(network, data, split, mode)
    for score, value in served.items():
        run.reporter.record(f"test/{score}_{shift.label}", step, value)
    batch: Scores | None = None
    bounds = batch_bounds(len(split), run.spec.training.batch_size, "merge")
    if statistics is not None and all(end - start > 1 for start, end in bounds):
        batch = scores_under(network, data, split, bounds, batch_statistics(network))
        for score, value in batch.items():
            run.reporter.record(f"bn/batch_{score}_{shift.label}", step, value)
    return {
        "scale": shift.scale,
        "shift": shift.shift,
        "served": finite(served),
        "batch": None if batch is None else finite(batch),
    }
