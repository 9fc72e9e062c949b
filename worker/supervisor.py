"""The supervisor: a thread that runs one job at a time in a trainer process and records what it reports."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.bell import ring
from core.errors import Unavailable
from core.queries import events, leases
from worker import forkserver
from worker.claims import Claim, claim_next, order_for, sweep
from worker.forkserver import Trainer, TrainerGone
from worker.ledger import Fenced, Ledger
from worker.losses import loss_drafts
from worker.messages import (
    CheckpointWritten,
    Command,
    Failed,
    Finished,
    GivenBack,
    LayersReported,
    LogLine,
    Message,
    Order,
    PhaseBegan,
    Points,
    Started,
    Stopped,
)
from worker.node import Node

log = logging.getLogger("evenkeel.worker")

LISTEN_SECONDS = 0.2  # how soon a drain is noticed while a trainer is silent
GRACE_SECONDS = 10.0  # for a graceful cancel, pause or deadline, before SIGKILL
START_PAUSES_SECONDS = (0.2, 0.4)  # a node that is short of processes for a moment is not short of them for good
LEASE_MARGIN = 0.8  # share of the lease after which a supervisor without a database stops trusting it


@dataclass(frozen=True)
class Lost:
    """The trainer ended without a last word."""

    code: str
    text: str


@dataclass(frozen=True)
class Unstarted:
    """This node could start no trainer, which is no fault of the job."""

    text: str


LastWord = Finished | Failed | Stopped | GivenBack
Ending = LastWord | Lost | Unstarted


def run_next(node: Node, slot: int) -> bool:
    """Claims and runs the next job; False when there is none. Raises OSError or EOFError, the job being back
    in the queue, when this node can start no trainer. `node.rest` before the next call, else a node that is
    broken takes job after job."""
    _warm_up(node)
    claim = claim_next(node, slot)
    if claim is None:
        return False
    log.info("%s attempt %d runs on slot %d", claim.job_id, claim.attempt, slot)
    sweep(node, claim)
    ledger = Ledger(node.database, node.store, claim, node.settings.lease_seconds)
    try:
        trainer = _start(node, order_for(node, slot, claim))
    except (OSError, EOFError) as error:
        node.starting.failed()
        _conclude(node, claim, ledger, Unstarted(f"no trainer could be started: {error or type(error).__name__}"))
        raise
    try:
        ending = Watch(node, claim, trainer, ledger).until_the_end()
        _conclude(node, claim, ledger, ending)
    except Fenced:
        log.warning("%s is no longer ours: its lease was lost", claim.job_id)
        trainer.kill()
    except BaseException:
        trainer.kill()
        raise
    finally:
        how = trainer.close()
    log.info("%s attempt %d is over; its trainer ended %s", claim.job_id, claim.attempt, how)
    return True


def _warm_up(node: Node) -> None:
    try:
        forkserver.warm_up()
    except (OSError, EOFError):
        node.starting.failed()
        raise
    node.warm.set()


def _start(node: Node, order: Order) -> Trainer:
    """A trainer, after a few tries within the attempt."""
    for pause in START_PAUSES_SECONDS:
        try:
            return forkserver.start(order)
        except (OSError, EOFError) as error:
            log.warning("%s: no trainer could be started: %r", order.job_id, error)
            node.draining.wait(pause)
    return forkserver.start(order)


class Watch:
    """From the first message of a trainer to its last: ticks, commands and time limits."""

    def __init__(self, node: Node, claim: Claim, trainer: Trainer, ledger: Ledger) -> None:
        self._node = node
        self._claim = claim
        self._trainer = trainer
        self._ledger = ledger
        self._told: Command | None = None
        self._kill_at: float | None = None
        self._overdue = False
        self._drained = False
        self._phase: str | None = None
        now = time.monotonic()
        self._tick_seconds = min(node.settings.tick_seconds, node.settings.heartbeat_seconds)
        self._next_tick = now + self._tick_seconds
        self._heard_at = now
        self._trusted_until = now + node.settings.lease_seconds * LEASE_MARGIN
        self._seen_points = False
        self._started = False

    def until_the_end(self) -> Ending:
        """Raises Fenced when the job is no longer ours."""
        while True:
            try:
                message = self._trainer.receive(min(LISTEN_SECONDS, max(0.0, self._next_tick - time.monotonic())))
            except TrainerGone:
                if not self._started:
                    self._node.starting.failed()  # perhaps the job's fault, but others should have a try at it
                return Lost("worker_lost", "the trainer ended without a last word")
            if message is not None:
                self._heard_at = time.monotonic()
                if isinstance(message, LastWord):
                    return self._last_word(message)
                self._note(message)
            if time.monotonic() >= self._next_tick:
                self._tick()
            ending = self._past_a_limit()
            if ending is not None:
                return ending

    def _note(self, message: Message) -> None:
        match message:
            case Started():
                self._started = True
                self._node.starting.worked()
                if message.step:
                    self._node.reading.worked()
                self._patiently(lambda: self._ledger.begin(message))
            case Points():
                self._ledger.points(message)
                if not self._seen_points and self._ledger.has_points:
                    self._seen_points = True
                    self._next_tick = 0.0  # the first step is shown at once
            case PhaseBegan():
                self._phase = message.phase
                self._ledger.phase(message)
            case LogLine():
                self._ledger.log(message)
            case LayersReported():
                self._ledger.layers(message)
            case CheckpointWritten():
                self._ledger.checkpoint(message)

    def _tick(self) -> None:
        self._next_tick = time.monotonic() + self._tick_seconds
        try:
            flags = self._ledger.commit()
        except Unavailable as error:
            log.warning("%s: %s", self._claim.job_id, error.message)
            return
        self._trusted_until = time.monotonic() + self._node.settings.lease_seconds * LEASE_MARGIN
        self._obey(flags)

    def _obey(self, flags: Any) -> None:
        limit = self._claim.row.spec["training"]["time_limit_seconds"]
        if flags.cancel_forced:
            self._kill_at = 0.0
        if flags.cancel_requested_at is not None:
            self._tell("cancel", self._grace(GRACE_SECONDS))
        elif limit is not None and flags.running_us > limit * 1e6:
            self._overdue = True
            self._tell("cancel", GRACE_SECONDS)
        elif flags.pause_requested_at is not None:
            self._tell("pause", self._grace(self._node.settings.stall_seconds))

    def _grace(self, seconds: float) -> float:
        """None outside of training: the checkpoint of the last step stands, if there is one, and a trainer that
        compiles, measures or exports would not listen before it is done."""
        return seconds if self._phase in (None, "training") else 0.0

    def _tell(self, command: Command, grace_seconds: float) -> None:
        if self._told != command:
            self._told = command
            self._trainer.tell(command)
        last_moment = time.monotonic() + grace_seconds
        self._kill_at = last_moment if self._kill_at is None else min(self._kill_at, last_moment)

    def _past_a_limit(self) -> Ending | None:
        now = time.monotonic()
        if self._node.draining.is_set() and not self._drained:
            self._drained = True
            self._tell(self._told or "drain", self._node.settings.drain_seconds)
        if self._kill_at is not None and self._told is not None and now >= self._kill_at:
            self._trainer.kill()
            return self._last_word(Stopped(self._told, self._ledger.step))
        if now - self._heard_at > self._node.settings.stall_seconds:
            self._trainer.kill()
            return Lost("stalled", f"the trainer reported nothing for {self._node.settings.stall_seconds:g} s")
        if now >= self._trusted_until:
            log.error("%s: the database was away for most of the lease; the trainer is stopped", self._claim.job_id)
            raise Fenced
        return None

    def _last_word(self, message: LastWord) -> Ending:
        if isinstance(message, GivenBack):
            self._node.reading.failed()
        if self._overdue and isinstance(message, Stopped):
            limit = self._claim.row.spec["training"]["time_limit_seconds"]
            text = f"the job ran longer than training.time_limit_seconds = {limit:g}: raise it, then retry"
            return Failed("deadline_exceeded", text, message.step)
        return message

    def _patiently(self, action: Callable[[], None]) -> None:
        """Repeats what can not wait for the next tick while the database is away and the lease is trusted."""
        while True:
            try:
                action()
                return
            except Unavailable:
                if time.monotonic() >= self._trusted_until or self._node.draining.wait(LISTEN_SECONDS):
                    raise Fenced from None


def _conclude(node: Node, claim: Claim, ledger: Ledger, ending: Ending) -> None:
    """The last transaction of an attempt, repeated while the database is away and the lease may still hold."""
    deadline = time.monotonic() + node.settings.lease_seconds * LEASE_MARGIN
    while True:
        try:
            _write_ending(node, claim, ledger, ending)
            return
        except Unavailable as error:
            log.warning("%s: %s", claim.job_id, error.message)
            if time.monotonic() >= deadline or node.draining.wait(LISTEN_SECONDS):
                raise Fenced from None


def _write_ending(node: Node, claim: Claim, ledger: Ledger, ending: Ending) -> None:
    match ending:
        case Finished():
            ledger.succeed(ending.result, ending.card, ending.artifacts)
        case Failed():
            error = {"code": ending.code, "message": ending.message, "step": ending.step}
            if ending.detail:
                log.error("%s failed: %s\n%s", claim.job_id, ending.message, ending.detail)
            ledger.finish("failed", ending.message, "error", error=error)
        case Stopped(command="cancel"):
            ledger.finish("cancelled", f"cancelled at step {ending.step}")
        case Stopped(command="pause"):
            ledger.put_back("paused", f"paused at step {ending.step}")
        case Stopped():
            ledger.put_back("queued", f"the worker is shutting down; back in the queue at step {ending.step}")
            ring(node.settings, claim.row.needs_cuda)  # another node may be free
        case Unstarted():
            ledger.put_back("queued", ending.text, "warning")
        case GivenBack():
            ledger.put_back("queued", f"back in the queue: {ending.reason}", "warning")
        case Lost():
            ledger.commit()  # what it still reported; its lease is given up by the next statement
            with node.database.write() as connection:
                row = connection.execute(
                    leases.lose(claim.job_id, claim.fence, node.settings.attempts_without_progress, ending.code)
                ).one_or_none()
                if row is None:
                    raise Fenced
                connection.execute(events.append(row.id, row.base, row.attempt, loss_drafts(row, ending.text)))
