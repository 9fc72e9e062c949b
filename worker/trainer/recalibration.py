"""Recalibration: population statistics of other data for the weights of a published version.

No step is trained, so there is nothing to checkpoint: an attempt that is interrupted begins again.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from bn_models.architecture import layers_of
from bn_models.networks import Network, build
from bn_models.normalization import normalizations
from bn_models.population import PopulationStatistics, using
from core.artifacts import ArtifactStore
from core.errors import JobFailed
from core.spec import JobSpec
from core.spec.recalibration import RecalibrationSpec
from core.states import Phase
from worker.messages import Finished, Order, Started
from worker.trainer.checkpoint import Progress
from worker.trainer.data import Data, prepare
from worker.trainer.device import fingerprint
from worker.trainer.evaluation import scores_of
from worker.trainer.gap import finite, gap_json, gap_report, judge, record_gap, tell_gap
from worker.trainer.health import report_at_the_end
from worker.trainer.layout import arrange
from worker.trainer.measuring import Trained, measure_population
from worker.trainer.monitor import Monitor
from worker.trainer.optimization import build_optimizer
from worker.trainer.patience import Patience
from worker.trainer.published import Version, read_version
from worker.trainer.publishing import publish
from worker.trainer.reporting import Reporter
from worker.trainer.results import result_of
from worker.trainer.run import Run
from worker.trainer.uploads import data_folder

Begin = Callable[[Phase], None]


def recalibrate(
    order: Order, spec: JobSpec, device: torch.device, store: ArtifactStore, reporter: Reporter, begin: Begin
) -> Finished:
    """Measures, evaluates before and after, and exports a version of the same weights.

    Raises JobFailed("storage_error") when the files of the base version are not what they were, or
    JobFailed("invalid_data") when the columns of the data are others.
    """
    wanted = spec.recalibration
    if wanted is None:
        raise ValueError("the spec asks for no recalibration")
    reporter.sink.send(Started(fingerprint(device, spec), 0))
    reporter.begin("loading")
    patience = Patience(order.storage_patience_seconds, reporter)
    base = read_version(store, patience, wanted.card, wanted.safetensors)
    progress = _trained_progress(spec, base, wanted, device)
    begin("preparing_data")
    fresh = prepare(spec.dataset, data_folder(order, store, patience), device, base.scalings)
    incomparable = _incomparable(fresh, base)
    data = replace(
        fresh,
        facts=base.facts,
        labels=base.labels,
        columns=base.columns,
        output_scaling=base.scalings.outputs,
        fields=tuple(base.card["input"].get("fields") or ()),
    )
    run = Run(order, spec, device, data, progress, store, patience, reporter)
    begin("population_statistics")
    statistics, population = measure_population(run)
    begin("evaluating")
    trained, comparison = _evaluate(run, base, statistics, population, incomparable)
    lineage = {**_lineage(spec, wanted), **comparison}
    begin("exporting")
    card, artifacts = publish(run, trained, {"source": base.card["source"], **lineage})
    reporter.end_phase()
    return Finished({**result_of(run, trained, 0, 0.0), **lineage}, card, artifacts)


def _trained_progress(spec: JobSpec, base: Version, wanted: RecalibrationSpec, device: torch.device) -> Progress:
    """The network of the base version. Layers that were frozen in training are measured anew like all others."""
    layers = layers_of(spec.network, spec.batch_norm, base.facts.input_shape, base.facts.outputs)
    network: Network = build(layers, base.facts.input_shape, spec.network.initialization, spec.training.seed)
    base.fill(network, wanted.weights_sha256, f"version {wanted.version}")
    for layer in normalizations(network).values():
        layer.frozen, layer.frozen_n = False, 0
    arrange(network, device, spec.training)
    return Progress(network, build_optimizer(network, spec.optimizer), Monitor.of(None, has_validation=False))


def _incomparable(fresh: Data, base: Version) -> str | None:
    """Why no scores can be compared, if so. Raises JobFailed when the columns are others than the model takes."""
    if fresh.columns != base.columns:
        message = f"the columns are {', '.join(fresh.columns)}, and the model takes {', '.join(base.columns)}"
        raise JobFailed("invalid_data", f"{message}: give data with the model's columns")
    if fresh.facts.task != base.facts.task:
        return f"the data are for {fresh.facts.task}, and the model is for {base.facts.task}: no scores to compare"
    if fresh.labels != base.labels:
        return "the data have other labels than the model gives: no scores to compare"
    return None


def _evaluate(
    run: Run, base: Version, statistics: PopulationStatistics, population: dict[str, Any], incomparable: str | None
) -> tuple[Trained, dict[str, Any]]:
    """What is published, and the test scores under the old and the new statistics."""
    network, data = run.progress.network, run.data
    report_at_the_end(run, statistics)
    if incomparable is not None:
        run.reporter.log("warning", incomparable)
        unknown = {"before": None, "after": None, "not_compared": incomparable}
        return Trained({}, statistics, population, None), unknown
    before = scores_of(network, data, data.test, using(network, base.statistics))
    gap = gap_report(network, data, statistics, run.spec.training.batch_size)
    record_gap(run.reporter, 0, gap)
    for score, value in before.items():
        run.reporter.record(f"bn/before_{score}", 0, value)
    run.reporter.flush()
    verdict = judge(run, statistics, gap)
    tell_gap(run.reporter, gap, verdict)
    after = gap["population"]
    comparison = {"before": finite(before), "after": finite(after), "not_compared": None}
    return Trained(after, statistics, population, gap_json(gap, verdict)), comparison


def _lineage(spec: JobSpec, wanted: RecalibrationSpec) -> dict[str, Any]:
    return {
        "recalibrated_from": {
            "model": wanted.model,
            "version": wanted.version,
            "job_id": wanted.job_id,
            "weights_file_sha256": wanted.safetensors.sha256,
            "statistics_sha256": wanted.statistics_sha256,
        },
        "recalibrated_on": spec.dataset.model_dump(mode="json"),
    }
