"""One attempt at a job, from order to result: the phases, in order."""

import time
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from bn_models.architecture import layers_of
from bn_models.networks import build
from core.artifacts import ArtifactStore
from core.errors import EvenkeelError, JobFailed, StorageAway, StorageFailed
from core.spec import JobSpec
from core.states import Phase
from worker.messages import Failed, Finished, GivenBack, Order, Started, Stopped
from worker.trainer import checkpoint
from worker.trainer.checkpoint import Progress
from worker.trainer.data import prepare
from worker.trainer.device import fingerprint, numerics
from worker.trainer.ensemble import combine
from worker.trainer.label_noise import with_noise
from worker.trainer.layout import arrange
from worker.trainer.loop import Loop
from worker.trainer.measuring import measure_and_evaluate
from worker.trainer.monitor import Monitor
from worker.trainer.optimization import build_optimizer
from worker.trainer.patience import Patience
from worker.trainer.publishing import publish
from worker.trainer.recalibration import recalibrate
from worker.trainer.reporting import Interrupted, Reporter, Sink, SinkClosed
from worker.trainer.results import result_of
from worker.trainer.run import Run
from worker.trainer.uploads import data_folder

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")


class NotNow(Exception):
    """This attempt can not begin, through no fault of the job's."""


def train(order: Order, sink: Sink) -> None:
    """Trains, measures, evaluates and exports what `order` asks for, and tells `sink` all of it.

    The last message is Finished, Stopped, GivenBack or Failed. Raises SinkClosed when nobody listens any more.
    """
    reporter = Reporter(sink)
    try:
        spec = JobSpec.model_validate(order.spec)
        with numerics(spec.resources, order.gpu) as device:
            finished = _run_phases(order, spec, device, reporter)
        sink.send(finished)
    except Interrupted as stop:
        reporter.flush()
        sink.send(Stopped(stop.command, reporter.step))
    except NotNow as reason:
        sink.send(GivenBack(str(reason)))
    except SinkClosed:
        raise
    except Exception as error:
        reporter.flush()
        sink.send(failure_of(error, reporter.step))


def failure_of(error: Exception, step: int) -> Failed:
    """The closed list of codes; a traceback only in `detail`, which is for the log."""
    detail = "".join(traceback.format_exception(error))
    match error:
        case JobFailed() | StorageFailed():
            return Failed(error.code, error.message, step, detail)
        case _ if _ran_out_of_memory(error):
            message = "memory ran out: use a smaller training.batch_size or network"
            return Failed("out_of_memory", message, step, detail)
        case EvenkeelError():
            return Failed("internal", error.message, step, detail)
        case _:
            message = f"the trainer failed with {type(error).__name__}; the worker's log has the traceback"
            return Failed("internal", message, step, detail)


def _ran_out_of_memory(error: Exception) -> bool:
    """torch has a class of its own for its GPU allocator; for all else it is a RuntimeError that says so."""
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in _OUT_OF_MEMORY) or isinstance(error, torch.OutOfMemoryError)
    return isinstance(error, MemoryError)


def _run_phases(order: Order, spec: JobSpec, device: torch.device, reporter: Reporter) -> Finished:
    cache_dir = Path(order.artifact_cache_dir) if order.artifact_cache_dir else None
    store = ArtifactStore(order.artifact_url, cache_dir, order.artifact_cache_bytes)
    begin = partial(_begin, reporter)
    if spec.recalibration is not None:
        return recalibrate(order, spec, device, store, reporter, begin)
    if spec.ensemble is not None:
        return combine(order, spec, device, store, reporter, begin)
    progress = _load(order, spec, device, store, reporter)

    begin("preparing_data")
    patience = Patience(order.storage_patience_seconds, reporter)
    clean = prepare(spec.dataset, data_folder(order, store, patience), device)
    labelled = with_noise(clean.training, spec.training.label_noise, clean.facts.outputs, spec.training.seed)
    data = replace(clean, training=labelled)
    run = Run(order, spec, device, data, progress, store, patience, reporter)

    loop = Loop(run)
    if spec.training.compile:
        begin("compiling")
        loop.warm_up()

    begin("training")
    steps, seconds = _train(run, loop)
    trained = measure_and_evaluate(run, begin)

    if spec.publish is None:
        reporter.end_phase()
        return Finished(result_of(run, trained, steps, seconds), None)
    begin("exporting")
    card, artifacts = publish(run, trained)
    reporter.end_phase()
    return Finished(result_of(run, trained, steps, seconds), card, artifacts)


def _load(order: Order, spec: JobSpec, device: torch.device, store: ArtifactStore, reporter: Reporter) -> Progress:
    """Network and optimizer, fresh or as the newest readable checkpoint has them. Raises NotNow when the store can
    not be asked for it: to begin anew then would throw away what it may well have."""
    try:
        snapshot, warnings = checkpoint.newest(store, order.checkpoints, spec)
    except StorageAway as error:
        raise NotNow(f"no checkpoint can be read now, and none is lost: {error.message}") from error
    if spec.fork is not None and snapshot is None:
        told = "; ".join(warnings) or "it has none"
        message = f"the checkpoint of step {spec.fork.step} of {spec.fork.job_id} can not be used: {told}"
        raise JobFailed("storage_error", f"{message}; fork another one")
    here = fingerprint(device, spec)
    reporter.step = snapshot.step if snapshot else 0
    reporter.sink.send(Started(here, reporter.step))
    reporter.begin("loading")
    for warning in warnings:
        reporter.log("warning", warning)
    facts = spec.dataset.facts
    layers = layers_of(spec.network, spec.batch_norm, facts.input_shape, facts.outputs)
    network = build(layers, facts.input_shape, spec.network.initialization, spec.training.seed)
    arrange(network, device, spec.training)
    monitor = Monitor.of(spec.training.early_stopping, has_validation=spec.dataset.split_sizes()[1] > 0)
    progress = Progress(network, build_optimizer(network, spec.optimizer), monitor)
    if snapshot is not None:
        checkpoint.restore(progress, snapshot, checkpoint.begins_a_fork(snapshot, spec))
        if snapshot.state["fingerprint"] != here:
            reporter.log("warning", f"resumed on other hardware: was {snapshot.state['fingerprint']}, is {here}")
    elif order.checkpoints:
        reporter.log("warning", "no checkpoint can be used: training begins again")
    return progress


def _train(run: Run, loop: Loop) -> tuple[int, float]:
    """(steps, seconds) of this attempt; the best weights are back in the network if the spec says so."""
    began, first = time.monotonic(), run.progress.step
    command = loop.train()
    if command is not None:
        raise Interrupted(command)
    if run.progress.best is not None:
        run.progress.network.load_state_dict(run.progress.best)
    return run.progress.step - first, time.monotonic() - began


def _begin(reporter: Reporter, phase: Phase) -> None:
    """A new phase, unless a command came meanwhile: whatever it is, the checkpoint of the last step stands."""
    command = reporter.sink.command()
    if command is not None:
        raise Interrupted(command)
    reporter.begin(phase)
