"""The training loop: one optimizer update a step, and what is due between two steps.

Randomness is stateless: the order of an epoch comes from H(seed, epoch), dropout from H(seed, step).
So a run that resumes at any step goes on with the same bits.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bn_models.architecture import batch_bounds
from bn_models.randomness import derive_seed
from core.artifacts import ArtifactStore
from core.errors import StorageAway, StorageFailed
from core.spec import JobSpec
from worker.messages import CheckpointWritten, Command, Order
from worker.trainer import checkpoint
from worker.trainer.checkpoint import Progress
from worker.trainer.data import Data
from worker.trainer.device import fingerprint, generator_of
from worker.trainer.evaluation import evaluate, loss_of
from worker.trainer.meter import meter_for
from worker.trainer.monitor import copy_weights
from worker.trainer.optimization import clip_gradients, gradient_norm, learning_rate
from worker.trainer.patience import Patience
from worker.trainer.reporting import Reporter

MISSED_CHECKPOINTS = 3
"""So many in a row that can not be written fail the job: who goes on without a net loses more each hour."""
_MASK = 2**64 - 1


@dataclass(frozen=True)
class Run:
    """All that belongs to one attempt."""

    order: Order
    spec: JobSpec
    device: torch.device
    data: Data
    progress: Progress
    store: ArtifactStore
    patience: Patience
    reporter: Reporter


def mix(base: int, step: int) -> int:
    """H(base, step) as 63 bits: the finalizer of splitmix64, because SHA-256 would cost more than the seeding."""
    z = (base + step * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) >> 1


class Loop:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._spec, self._training = run.spec, run.spec.training
        self._progress, self._reporter = run.progress, run.reporter
        self._network, self._optimizer = run.progress.network, run.progress.optimizer
        self._parameters = list(self._network.parameters())
        self._meter = meter_for(run.device, self._optimizer, run.reporter)
        self._generator = generator_of(run.device)
        self._step_seed = derive_seed(self._training.seed, "step")
        self._batches = Batches(run)
        self._base_rate = run.spec.optimizer.learning_rate
        self._rate = math.nan  # equals no rate, so that the first one is always set, be it 0
        self._rows, self._since = 0, time.monotonic()
        self._saved_step, self._missed = run.progress.step, 0

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
            self._step(step)
            progress.step = reporter.step = step
            self._between_steps(step)
            now = time.monotonic()
            if reporter.due(now):
                self._flush(now)
        self._flush(time.monotonic())
        return None

    def _step(self, step: int) -> None:
        inputs, targets = self._batches.of(step)
        self._generator.manual_seed(mix(self._step_seed, step))
        outputs = self._forward(inputs)
        loss = loss_of(outputs, targets, self._training.label_smoothing)
        self._meter.check(step, loss)
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self._limit_gradients()
        self._set_rate(learning_rate(self._spec.schedule, self._base_rate, step, self._training.steps))
        self._optimizer.step()
        correct = (outputs.detach().argmax(1) == targets).sum() if targets.dtype == torch.int64 else None
        self._meter.record(step, self._rate, len(targets), correct, norm)
        self._rows += len(targets)

    def _forward(self, inputs: Tensor) -> Tensor:
        if self._training.precision == "float32":
            outputs: Tensor = self._network(inputs)
            return outputs
        with torch.autocast(self._run.device.type, torch.bfloat16):
            outputs = self._network(inputs)
        return outputs.float()

    def _limit_gradients(self) -> Tensor | None:
        """Clips if the spec says so; the norm before clipping, where it is to be recorded."""
        maximum, record = self._spec.optimizer.clip_norm, self._training.record_gradient_norm
        if maximum is None and not record:
            return None
        norm = gradient_norm(self._parameters)
        if maximum is not None:
            clip_gradients(self._parameters, norm, maximum)
        return norm if record else None

    def _set_rate(self, rate: float) -> None:
        if rate != self._rate:
            self._rate = rate
            for group in self._optimizer.param_groups:
                group["lr"] = rate

    def _between_steps(self, step: int) -> None:
        """Evaluation, early stopping and checkpoints, in this order, when they are due."""
        progress, training = self._progress, self._training
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
                progress, run.spec, fingerprint(run.device, run.spec.resources), self._batches.epoch, self._rate
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


class Batches:
    """The batch of every step: epochs are seeded permutations, cut at the bounds that admission checked."""

    def __init__(self, run: Run) -> None:
        training = run.spec.training
        self._split = run.data.training
        self._bounds = batch_bounds(len(self._split), training.batch_size, training.tail)
        self._seed = training.seed
        self.epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def of(self, step: int) -> tuple[Tensor, Tensor]:
        """Scaled inputs and targets of `step`, counted from 1."""
        epoch, index = divmod(step - 1, len(self._bounds))
        if epoch != self.epoch:
            self._order, self.epoch = self._split.shuffled(derive_seed(self._seed, "order", epoch)), epoch
        start, end = self._bounds[index]
        return self._split.gather(self._order[start:end])
