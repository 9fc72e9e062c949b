"""Simulated workers: the trainer is a sleeper that reports invented points, all that meets the database is real."""

import logging
import random
import tempfile
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path

from benchmarks._stacks import node_of
from core.errors import EvenkeelError
from core.queries import leases
from worker import reaper, registry
from worker.claims import Claim, claim_next
from worker.ledger import Fenced, Ledger
from worker.messages import Points, Started
from worker.node import Node

SERIES = ("train/loss", "train/accuracy", "optimizer/learning_rate")
THREAD_BYTES = 512 * 1024
MEET_SECONDS = 120.0
_others: Barrier


@dataclass(frozen=True)
class Plan:
    """What every simulated worker does, and when it is measured (seconds since 1970)."""

    url: str
    tick_seconds: float
    heartbeat_seconds: float
    reaper_seconds: float
    points: int  # a tick, in all series together
    job_ticks: int
    start_at: float
    started_at: float  # the last worker
    begin_at: float
    end_at: float

    @property
    def steps(self) -> int:
        """Steps of a series in one tick."""
        return max(1, self.points // len(SERIES))


@dataclass
class Seen:
    """What the workers of one process saw within the window, in seconds."""

    ticks: list[float] = field(default_factory=list)
    claims: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    cpu_seconds: float = 0.0


class Complaints(logging.Handler):
    """Counts what reapers and registries would have written to their logs."""

    def __init__(self, plan: Plan, seen: Seen) -> None:
        super().__init__(logging.WARNING)
        self._plan, self._seen = plan, seen

    def emit(self, record: logging.LogRecord) -> None:
        if self._plan.begin_at <= time.time() <= self._plan.end_at:
            self._seen.errors.append(record.getMessage().split(" (")[-1][:80])


def adopt(barrier: Barrier) -> None:
    """Of a process that will `meet` the others."""
    global _others
    _others = barrier


def meet() -> None:
    """Blocks until every process of the rehearsal has loaded what it needs."""
    _others.wait(MEET_SECONDS)


def run(first: int, workers: int, plan: Plan) -> Seen:
    """Runs in a process of its own: workers `first`, `first`+1, … until the window has ended."""
    threading.stack_size(THREAD_BYTES)
    seen = Seen()
    log = logging.getLogger("evenkeel.worker")
    log.propagate = False
    log.addHandler(Complaints(plan, seen))
    with tempfile.TemporaryDirectory() as folder:
        nodes = [_node(number, plan, folder) for number in range(first, first + workers)]
        threads = [thread for node in nodes for thread in _threads(node, plan, seen)]
        for thread in threads:
            thread.start()
        time.sleep(max(0.0, plan.begin_at - time.time()))
        before = time.process_time()
        time.sleep(max(0.0, plan.end_at - time.time()))
        seen.cpu_seconds = time.process_time() - before
        for node in nodes:
            node.draining.set()
        for thread in threads:
            thread.join()
        for node in nodes:
            node.database.close()
    return seen


def _node(number: int, plan: Plan, folder: str) -> Node:
    home = Path(folder) / str(number)
    home.mkdir()
    return node_of(
        number,
        plan.url,
        str(home),
        broker_url="redis://nobody",
        tick_seconds=plan.tick_seconds,
        heartbeat_seconds=plan.heartbeat_seconds,
        reaper_seconds=plan.reaper_seconds,
    )


def _threads(node: Node, plan: Plan, seen: Seen) -> list[threading.Thread]:
    """As in a worker of one slot; each worker begins at a moment of its own."""
    starts_at = random.uniform(plan.start_at, plan.started_at)
    return [
        threading.Thread(target=_at, args=(node, starts_at, action))
        for action in (lambda: _slot(node, plan, seen), lambda: reaper.run(node), lambda: registry.run(node, 1))
    ]


def _at(node: Node, moment: float, action: Callable[[], None]) -> None:
    if not node.draining.wait(max(0.0, moment - time.time())):
        action()


def _slot(node: Node, plan: Plan, seen: Seen) -> None:
    """Job after job; polls while there is none."""
    while not node.draining.is_set():
        try:
            began = time.time()
            claim = claim_next(node, 0)
            _note(seen.claims, began, plan)
            if claim is None:
                node.draining.wait(node.settings.resolved_poll_seconds)
                _poll(node)
                continue
            _run(node, claim, plan, seen)
        except (EvenkeelError, Fenced) as error:
            if plan.begin_at <= time.time() <= plan.end_at:
                seen.errors.append(f"{type(error).__name__} {error}".split(" (")[-1][:80])
            node.draining.wait(1.0)


def _poll(node: Node) -> None:
    with node.database.read() as connection:
        connection.execute(leases.waiting(cuda=False)).scalar_one()


def _run(node: Node, claim: Claim, plan: Plan, seen: Seen) -> None:
    ledger = Ledger(node.database, node.store, claim, node.settings.lease_seconds)
    ledger.begin(Started("sleeper", 0))
    for tick in range(plan.job_ticks):
        began = time.time()
        ledger.points(invented(tick * plan.steps, plan.steps))
        ledger.commit()
        _note(seen.ticks, began, plan)
        if node.draining.wait(max(0.0, began + plan.tick_seconds - time.time())):
            return
    ledger.finish("succeeded", "done")


def invented(after_step: int, steps: int) -> Points:
    """Columns of the steps behind `after_step`, the same values in every series."""
    numbers = array("q", range(after_step + 1, after_step + 1 + steps))
    return Points({name: (numbers, array("d", (1.0 / number for number in numbers))) for name in SERIES})


def _note(times: list[float], began: float, plan: Plan) -> None:
    ended = time.time()
    if plan.begin_at <= ended <= plan.end_at:
        times.append(ended - began)
