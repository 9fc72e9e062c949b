"""The training loop: one optimizer update a step, and what is due between two steps.

Randomness is stateless: the order of an epoch comes from H(seed, epoch), dropout and augmentation from H(seed, step).
So a run that resumes at any step goes on with the same bits.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from bn_models.guard import RunningGuard
from bn_models.randomness import derive_seed, mix
from core.errors import StorageAway, StorageFailed
from worker.messages import CheckpointWritten, Command
from worker.trainer import checkpoint
from worker.trainer.augmentation import Augmentation
from worker.trainer.batches import Batches
from worker.trainer.compiling import Compiled, why_not
from worker.trainer.device import fingerprint, generator_of
from worker.trainer.evaluation import evaluate
from worker.trainer.freezing import freeze_due, freezing_steps
from worker.trainer.health import report_layers
from worker.trainer.meter import meter_for
from worker.trainer.monitor import copy_weights
from worker.trainer.observing import Observer
from worker.trainer.optimization import clip_gradients, gradient_norm, learning_rate
from worker.trainer.run import Run
from worker.trainer.step import passes_for
from worker.trainer.update import Update

MISSED_CHECKPOINTS = 3
"""So many in a row that can not be written fail the job: who goes on without a net loses more each hour."""


class Loop:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._spec, self._training = run.spec, run.spec.training
        self._progress, self._reporter = run.progress, run.reporter
        self._network = run.progress.network
        self._guard = RunningGuard(self._network)
        self._meter = meter_for(run.device, run.progress.optimizer, run.reporter, self._guard)
        self._generator = generator_of(run.device)
        self._step_seed = derive_seed(self._training.seed, "step")
        augmentation = Augmentation.of(self._training, run.data.input_scaling, run.data.facts.pixel_maximum)
        self._batches = Batches(run.data.training, self._training, augmentation)
        self._passes = passes_for(self._network, run.spec, run.device, self._network)
        self._update = Update(run.progress.optimizer, run.device)
        self._base_rate = self._rate = run.spec.optimizer.learning_rate
        self._rows, self._since = 0, time.monotonic()
        self._saved_step, self._missed = run.progress.step, 0
        self._freezing_steps = freezing_steps(run)
        self._observer = Observer.of(run)

    def train(self) -> Command | None:
        """Trains to the end, and gives None; or to the step boundary at which a command came, and gives that.

        Raises JobFailed("non_finite_loss") before the update that such a loss would make, StorageFailed
        when checkpoints can not be written time after time, JobFailed("storage_error") when the store is away.
        """
        progress, reporter = self._progress, self._reporter
        self._network.train()
        while not progress.complete:
            command = reporter.sink.command()
            if command is not None:
                self._leave_checkpoint()
                return command
            step = progress.step + 1
            if step in self._freezing_steps:
                self._freeze(step)
            self._step(step)
            progress.step = reporter.step = step
            self._between_steps(step)
            now = time.monotonic()
            if reporter.due(now):
                self._flush(now)
        self._flush(time.monotonic())
        return None

    def warm_up(self) -> None:
        """Compiles both passes for every batch size; weights and running averages are as before.

        Where that can not be done, a warning says why, and training goes on without.
        """
        reason = why_not(self._network, self._run.device)
        if reason is not None:
            self._reporter.log("warning", f"training.compile: not compiled, {reason}")
            return
        state = copy_weights(self._network)
        self._network.train()
        compiled = Compiled(self._network)
        samples = [self._batches.sample(rows) for rows in self._batches.sizes]
        for inputs, _ in samples:
            compiled.count(inputs)
        compiled.stop_counting()
        self._passes = passes_for(self._network, self._spec, self._run.device, compiled)
        for inputs, targets in samples:
            self._passes.forward(inputs, targets)
            self._passes.backward()
        self._network.load_state_dict(state)

    def _freeze(self, step: int) -> None:
        """A frozen layer computes otherwise, so that the passes are made anew."""
        with self._not_counted():
            self._meter.settle()
            freeze_due(self._run, step)
            self._passes = passes_for(self._network, self._spec, self._run.device, self._network)
            if self._training.compile:
                self.warm_up()

    def _step(self, step: int) -> None:
        inputs, targets = self._batches.of(step)
        self._generator.manual_seed(mix(self._step_seed, step))
        self._guard.snapshot()
        loss = self._passes.forward(inputs, targets)
        self._meter.check(step, loss)
        gradients = self._passes.backward()
        observer = self._observer
        if observer is not None and observer.due(step):
            observer.see_gradients()
        norm = self._limited(gradients)
        self._rate = learning_rate(self._spec.schedule, self._base_rate, step, self._training.steps)
        self._update(self._rate)
        classes = targets.dtype == torch.int64
        correct = (self._passes.outputs.argmax(1) == targets).sum() if classes else None
        self._meter.record(step, self._rate, len(targets), correct, norm)
        self._rows += len(targets)

    def _limited(self, gradients: list[Tensor]) -> Tensor | None:
        """Clips if the spec says so; the norm before clipping, where it is to be recorded."""
        maximum, record = self._spec.optimizer.clip_norm, self._training.record_gradient_norm
        if maximum is None and not record:
            return None
        norm = gradient_norm(gradients)
        if maximum is not None:
            clip_gradients(gradients, norm, maximum)
        return norm if record else None

    def _between_steps(self, step: int) -> None:
        """Observation, evaluation, early stopping and checkpoints, in this order, when they are due."""
        progress, training = self._progress, self._training
        if self._observer is not None and self._observer.due(step):
            with self._not_counted():
                self._meter.settle()
                self._observer.observe(step)
        last = step == training.steps
        best = False
        if last or step % training.evaluate_every == 0:
            best = self._evaluate(step)
            last = last or progress.monitor.exhausted
        progress.complete = last
        patience = self._run.patience
        periodic = (best or step % training.checkpoint_every == 0) and not patience.waiting
        if last or periodic or patience.due:
            self._checkpoint(best)

    def _evaluate(self, step: int) -> bool:
        """Records the scores of the held-out splits; is the monitored one a new best?"""
        data, monitor = self._run.data, self._progress.monitor
        with self._not_counted():
            self._meter.settle()
            scores = {f"test/{name}": score for name, score in evaluate(self._network, data, data.test).items()}
            if data.validation is not None:
                validation = evaluate(self._network, data, data.validation)
                scores |= {f"validation/{name}": score for name, score in validation.items()}
            for series, score in scores.items():
                self._reporter.record(series, step, score)
            report_layers(self._run, step)
        best = monitor.observe(step, scores[monitor.series])
        early_stopping = self._training.early_stopping
        if best and early_stopping is not None and early_stopping.restore_best:
            self._progress.best = copy_weights(self._network)
        return best

    def _checkpoint(self, best: bool) -> None:
        """A store may be full or away for a while: training goes on without this checkpoint, but not for ever."""
        error = self._save(best)
        if isinstance(error, StorageAway):
            self._run.patience.missed(error)
            return
        self._missed = 0 if error is None else self._missed + 1
        if error is not None and self._missed == MISSED_CHECKPOINTS:
            text = f"{MISSED_CHECKPOINTS} checkpoints in a row could not be written: {error.message}"
            raise StorageFailed(f"{text}; see to the storage, then retry") from error

    def _save(self, best: bool) -> StorageFailed | None:
        """Writes and tells of a checkpoint; the error when the store is away, or refuses it, which is told as a
        warning. What stands for the whole training is worth waiting for."""
        run, progress = self._run, self._progress
        with self._not_counted():
            self._flush(time.monotonic())  # first the points up to this step, then the checkpoint that stands for them
            snapshot = checkpoint.capture(
                progress, run.spec, fingerprint(run.device, run.spec), self._batches.epoch, self._rate
            )
            write = partial(checkpoint.write, run.store, run.order.job_id, run.order.fence, snapshot)
            try:
                reference = run.patience.insist(write) if progress.complete else write()
                run.patience.answered()
            except StorageAway as error:
                return error
            except StorageFailed as error:
                run.reporter.log("warning", f"no checkpoint of step {progress.step}: {error.message}")
                return error
            self._saved_step = progress.step
            monitor = progress.monitor
            score = monitor.best if best else None
            run.reporter.sink.send(CheckpointWritten(reference, progress.complete, monitor.series, score, best))
            return None

    def _leave_checkpoint(self) -> None:
        """For every command, cancel included: whoever cancelled, or set a deadline, may want what there is.
        One of this very step stays as it is, for it may be marked as the best."""
        if self._progress.step != self._saved_step:
            error = self._save(best=False)
            if isinstance(error, StorageAway):
                self._reporter.log("warning", f"no checkpoint of step {self._progress.step}: {error.message}")
        self._flush(time.monotonic())

    def _flush(self, now: float) -> None:
        self._meter.settle()
        if self._rows:
            rate = self._rows / max(now - self._since, 1e-9)
            self._reporter.record("throughput/examples_per_second", self._progress.step, rate)
            self._rows, self._since = 0, now
        self._reporter.flush()

    @contextmanager
    def _not_counted(self) -> Iterator[None]:
        """Time that is not spent on training steps, and does not lower the throughput."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began
