"""After the last step: population statistics for the exact weights that are published, and what they are worth."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bn_models.population import PopulationStatistics, measure
from core.states import Phase
from worker.trainer.answers import kept_answers
from worker.trainer.evaluation import Scores, evaluate, has_statistics
from worker.trainer.gap import gap_json, gap_report, judge, record_gap, tell_gap
from worker.trainer.health import report_at_the_end
from worker.trainer.run import Run
from worker.trainer.shifts import scores_of_shifts


@dataclass(frozen=True)
class Trained:
    """What the phases after training found. Without a layer that has statistics, all but the scores is None."""

    scores: Scores  # on the test split, as the model is served
    statistics: PopulationStatistics | None = None
    population: dict[str, Any] | None = None  # how they were measured
    gap: dict[str, Any] | None = None
    shifted: list[dict[str, Any]] = field(default_factory=list)  # scores of the shifts that were asked for
    answers: dict[str, Any] | None = None  # the file of answers on the test split, if it was asked for


def measure_and_evaluate(run: Run, begin: Callable[[Phase], None]) -> Trained:
    """Test scores as the model will be served, and the gap between the ways to normalize. `begin` starts a phase."""
    network, data = run.progress.network, run.data
    if not has_statistics(network):
        begin("evaluating")
        scores, shifts = evaluate(network, data, data.test), scores_of_shifts(run, None)
        trained = Trained(scores, shifted=shifts, answers=kept_answers(run, None))
        run.reporter.flush()
        return trained
    begin("population_statistics")
    statistics, population = measure_population(run)
    begin("evaluating")
    gap = gap_report(network, data, statistics, run.spec.training.batch_size)
    record_gap(run.reporter, run.progress.step, gap)
    shifts = scores_of_shifts(run, statistics)
    run.reporter.flush()
    verdict = judge(run, statistics, gap)
    tell_gap(run.reporter, gap, verdict)
    report_at_the_end(run, statistics)
    return Trained(
        gap["population"], statistics, population, gap_json(gap, verdict), shifts, kept_answers(run, statistics)
    )


def measure_population(run: Run) -> tuple[PopulationStatistics, dict[str, Any]]:
    """The statistics over the training split, as it is stored, and how they came about: for result and card."""
    training, split = run.spec.training, run.data.training
    statistics = measure(
        run.progress.network, split.stored(), run.spec.population, training.batch_size, training.seed, split.scaler
    )
    return statistics, {
        "estimator": statistics.estimator,
        "samples": statistics.samples,
        "of": len(split),
        "sampled": statistics.sampled,
        "batch_size": statistics.batch_size,
        "seconds": round(statistics.seconds, 6),
    }
