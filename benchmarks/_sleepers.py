"""Simulated workers: the trainer is a sleeper that reports invented points, all that meets the database is real.

A worker is three lives on a schedule (its slot, its reaper, its sign of life), not three threads."""

import multiprocessing
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

from benchmarks._schedule import Life, Schedule
from benchmarks._stacks import node_of
from core.db import Database
from core.errors import Unavailable
from core.queries import leases
from worker import reaper, registry
from worker.claims import Claim, claim_next
from worker.ledger import Fenced, Ledger
from worker.local import RETRY_SECONDS
from worker.messages import Points, Started
from worker.node import Node
from worker.supervisor import LEASE_MARGIN, LISTEN_SECONDS

SERIES = ("train/loss", "train/accuracy", "optimizer/learning_rate")
PROCESSES = 4
MEET_SECONDS = 120.0
BEYOND_SECONDS = 1.0
"""Workers go on a little beyond the window: what they used at its end is to be read while they are all there."""
_others: Barrier


@dataclass(frozen=True)
class Plan:
    """What every simulated worker does, and when it is measured (seconds since 1970)."""

    url: str
    tick_seconds: float
    reaper_seconds: float
    node_seconds: float
    points: int  # a tick, in all series together
    job_ticks: int
    at_once: int  # threads, in all processes together
    shared_pool: int | None  # connections of all workers together; None: each has its own
    start_at: float  # the first worker
    started_at: float  # the last one
    begin_at: float
    end_at: float

    @property
    def steps(self) -> int:
        """Steps of a series in one tick."""
        return max(1, self.points // len(SERIES))


class Done(NamedTuple):
    """One transaction that was committed; moments in seconds since 1970."""

    worker: int
    due: float
    began: float
    ended: float


@dataclass
class Seen:
    """What workers saw from their start to their end; CPU within the window."""

    ticks: list[Done] = field(default_factory=list)
    claims: list[Done] = field(default_factory=list)
    errors: list[tuple[float, str]] = field(default_factory=list)  # when, and what
    cpu_seconds: float = 0.0

    def add(self, other: "Seen") -> None:
        self.ticks += other.ticks
        self.claims += other.claims
        self.errors += other.errors
        self.cpu_seconds += other.cpu_seconds

    def complain(self, error: Exception) -> None:
        self.errors.append((time.time(), f"{type(error).__name__} {error}".split(" (")[-1][:80]))


class Crowd:
    """Workers in a few processes, which have loaded all that they need."""

    def __init__(self, pool: ProcessPoolExecutor, processes: int, workers: int) -> None:
        self._pool = pool
        self._shares = [range(number, workers, processes) for number in range(processes)]
        self._futures: list[Future[Seen]] = []

    def start(self, plan: Plan) -> None:
        self._futures = [self._pool.submit(run, share, len(self._shares), plan) for share in self._shares]

    def seen(self) -> Seen:
        """Blocks to the end of the plan."""
        seen = Seen()
        for future in self._futures:
            seen.add(future.result())
        return seen


@contextmanager
def crowd(workers: int) -> Iterator[Crowd]:
    processes = min(PROCESSES, workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _adopt, (context.Barrier(processes),)) as pool:
        for future in [pool.submit(_meet) for _ in range(processes)]:
            future.result()
        yield Crowd(pool, processes, workers)


def _adopt(barrier: Barrier) -> None:
    global _others
    _others = barrier


def _meet() -> None:
    """Blocks until every process has come so far."""
    _others.wait(MEET_SECONDS)


def run(numbers: range, processes: int, plan: Plan) -> Seen:
    """Runs in a process of its own: these workers, until the window has ended, and a little more."""
    seen, schedule = Seen(), Schedule()
    schedule.add(_meter(plan, seen), plan.begin_at)
    shared = None
    if plan.shared_pool is not None:
        shared = Database(plan.url, max(1, plan.shared_pool // processes), overflow=0)
    with tempfile.TemporaryDirectory() as folder:
        nodes = [_node(number, shared or Database(plan.url), plan, folder) for number in numbers]
        step = (plan.started_at - plan.start_at) / max(1, len(numbers))
        for place, (number, node) in enumerate(zip(numbers, nodes, strict=True)):
            starts_at = plan.start_at + place * step
            for life in (_slot(number, node, plan, seen), _reaper(node, seen), _signs(node, seen)):
                schedule.add(life, starts_at)
        schedule.run(max(1, plan.at_once // processes), plan.end_at + BEYOND_SECONDS)
        for database in {node.database for node in nodes}:
            database.close()
    return seen


def _node(number: int, database: Database, plan: Plan, folder: str) -> Node:
    home = Path(folder) / str(number)
    home.mkdir()
    return node_of(
        number,
        database,
        str(home),
        poll_seconds=5.0,  # as where there is a broker
        tick_seconds=plan.tick_seconds,
        reaper_seconds=plan.reaper_seconds,
        node_seconds=plan.node_seconds,
    )


def _meter(plan: Plan, seen: Seen) -> Life:
    """CPU of this process from the begin of the window to its end."""
    before = time.process_time()
    yield plan.end_at
    seen.cpu_seconds = time.process_time() - before


def _reaper(node: Node, seen: Seen) -> Life:
    while True:
        yield time.time() + node.settings.reaper_seconds
        try:
            reaper.reap(node)
        except Unavailable as error:
            seen.complain(error)


def _signs(node: Node, seen: Seen) -> Life:
    known = False
    while True:
        try:
            known = registry.sign(node, 1, known)
        except Unavailable as error:
            seen.complain(error)
        yield time.time() + node.settings.node_seconds


def _slot(number: int, node: Node, plan: Plan, seen: Seen) -> Life:
    """Job after job; polls while there is none."""
    while True:
        due = began = time.time()
        try:
            claim = claim_next(node, 0)
        except Unavailable as error:
            seen.complain(error)
            yield time.time() + RETRY_SECONDS
            continue
        seen.claims.append(Done(number, due, began, time.time()))
        if claim is None:
            yield from _polls(node, seen)
        else:
            yield from Sleeping(number, node, claim, plan, seen).ticks()


def _polls(node: Node, seen: Seen) -> Life:
    """Ends when work waits."""
    while True:
        yield time.time() + node.settings.resolved_poll_seconds
        try:
            with node.database.read() as connection:
                if connection.execute(leases.waiting(cuda=False)).scalar_one():
                    return
        except Unavailable as error:
            seen.complain(error)


class Sleeping:
    """One job from its claim to its end, as a supervisor records it: what the database does not take now is kept
    for the next tick, until the lease can no longer be trusted."""

    def __init__(self, number: int, node: Node, claim: Claim, plan: Plan, seen: Seen) -> None:
        self._number, self._plan, self._seen = number, plan, seen
        self._lease_seconds = node.settings.lease_seconds
        self._ledger = Ledger(node.database, node.store, claim, self._lease_seconds)
        self._trust()

    def ticks(self) -> Life:
        try:
            yield from self._patiently(lambda: self._ledger.begin(Started("sleeper", 0)))
            due = time.time()
            for tick in range(self._plan.job_ticks):
                yield due
                began = time.time()
                self._ledger.points(invented(tick * self._plan.steps, self._plan.steps))
                self._tick(due, began)
                due = began + self._plan.tick_seconds
            yield due
            yield from self._patiently(lambda: self._ledger.finish("succeeded", "done"))
        except Fenced as error:
            self._seen.complain(error)

    def _tick(self, due: float, began: float) -> None:
        try:
            self._ledger.commit()
        except Unavailable as error:
            self._doubt(error)
            return
        self._trust()
        self._seen.ticks.append(Done(self._number, due, began, time.time()))

    def _patiently(self, action: Callable[[], None]) -> Life:
        while True:
            try:
                action()
                return
            except Unavailable as error:
                self._doubt(error)
                yield time.time() + LISTEN_SECONDS

    def _trust(self) -> None:
        self._trusted_until = time.time() + self._lease_seconds * LEASE_MARGIN

    def _doubt(self, error: Unavailable) -> None:
        self._seen.complain(error)
        if time.time() >= self._trusted_until:
            raise Fenced from error


def invented(after_step: int, steps: int) -> Points:
    """Columns of the steps behind `after_step`, the same values in every series."""
    numbers = array("q", range(after_step + 1, after_step + 1 + steps))
    return Points({name: (numbers, array("d", (1.0 / number for number in numbers))) for name in SERIES})
