"""The gap: one network, the same test rows, three ways to normalize; and why they differ."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from bn_models.architecture import batch_bounds
from bn_models.networks import Network
from bn_models.normalization import batch_statistics, evaluation
from bn_models.population import PopulationStatistics, using
from worker.trainer.causes import GapReport, differ, explain
from worker.trainer.data import Data
from worker.trainer.evaluation import Scores, scores_of, scores_under
from worker.trainer.reporting import Reporter
from worker.trainer.run import Run


@dataclass(frozen=True)
class Verdict:
    """Is the gap large, why, and what to do; `pairs` says which two ways to normalize differ.

    `harmless`: nothing but batch statistics does worse, and nobody is served by these.
    """

    large: bool
    harmless: bool = True
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
    # The running average of a recalibrated network is of other data: that it is far off is what was wanted.
    ways = ("batch", "population") if run.spec.recalibration else ("batch", "running_average", "population")
    differing = [
        (one, other)
        for one, other in combinations(ways, 2)
        if one in gap and differ(gap[one], gap[other], run.order.thresholds, len(run.data.test))
    ]
    if not differing:
        return Verdict(False)
    harmless = all("batch" in pair for pair in differing) and gap["batch"]["loss"] > gap["population"]["loss"]
    found = explain(run, statistics, gap, differing)
    pairs = tuple(f"{one} and {other}" for one, other in differing)
    return Verdict(True, harmless, pairs, tuple(cause for cause, _ in found), tuple(remedy for _, remedy in found))


def tell_gap(reporter: Reporter, gap: GapReport, verdict: Verdict) -> None:
    """A large gap is a warning in the job's log, with its figures; one that harms nobody is told all the same."""
    if not verdict.large:
        return
    score = "accuracy" if "accuracy" in gap["population"] else "r2"
    figures = ", ".join(
        f"{name.replace('_', ' ')} {score} {scores[score]:.4g} and loss {scores['loss']:.4g}"
        for name, scores in gap.items()
    )
    text = f"test scores depend on how batch norm normalizes ({figures}): {verdict.cause}; {verdict.remedy}"
    reporter.log("info" if verdict.harmless else "warning", text, {"kind": "gap", "gap": gap_json(gap, verdict)})


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
