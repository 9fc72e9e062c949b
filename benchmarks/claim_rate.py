"""How many jobs a second can be claimed, when nothing is trained?

    python -m benchmarks.claim_rate [--jobs 1000] [--claimers 1 4 16 64] [--tenants 3] [--quick]

Each claimer is a thread that takes the next job by the worker's own function and ends it at once by the worker's own
ledger: two transactions a job. They live in up to four processes, as slots do in workers, and drain one queue.
Measured on SQLite and on Postgres, one after the other, with each number of claimers. Fails when a job was not
claimed exactly once, or a database found a deadlock.
"""

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

from sqlalchemy import Connection, text

from benchmarks._stacks import KINDS, Postgres, end_in_good_order, migrated, node_of, percentile, queue_jobs
from core.db import Database
from core.queries import leases
from worker.claims import claim_next
from worker.ledger import Ledger
from worker.node import Node

PROCESSES = 4
_start: Barrier


@dataclass(frozen=True)
class Drained:
    """What the claimers of one process saw."""

    began: float
    ended: float
    claims: list[float]  # seconds each
    came_to_nothing: int  # claims that found no row although one was waiting


@dataclass(frozen=True)
class Rate:
    jobs: int
    seconds: float
    claims: list[float]
    came_to_nothing: int

    @property
    def a_second(self) -> float:
        return self.jobs / self.seconds


def combine(parts: list[Drained]) -> Rate:
    """All processes as one: from the first begin to the last end."""
    claims = [seconds for part in parts for seconds in part.claims]
    wall = max(part.ended for part in parts) - min(part.began for part in parts)
    return Rate(len(claims), wall, claims, sum(part.came_to_nothing for part in parts))


def drain(number: int, url: str, claimers: int) -> Drained:
    """Runs in a process of its own: claims until the queue is empty."""
    claims: list[float] = []
    nothing: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        node = node_of(number, Database(url), folder)
        threads = [threading.Thread(target=_claim, args=(node, slot, claims, nothing)) for slot in range(claimers)]
        _start.wait()
        began = time.time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended = time.time()
        node.database.close()
    return Drained(began, ended, claims, len(nothing))


def _claim(node: Node, slot: int, claims: list[float], nothing: list[int]) -> None:
    while True:
        began = time.perf_counter()
        claim = claim_next(node, slot)
        if claim is None:
            with node.database.read() as connection:
                if not connection.execute(leases.waiting(cuda=False)).scalar_one():
                    return
            nothing.append(1)
            continue
        claims.append(time.perf_counter() - began)
        Ledger(node.database, node.store, claim, node.settings.lease_seconds).finish("succeeded", "done")


def _adopt(barrier: Barrier) -> None:
    global _start
    _start = barrier


def measure(url: str, jobs: int, claimers: int, tenants: int) -> Rate:
    """Queues the jobs and drains them. Raises RuntimeError when one was not claimed exactly once."""
    database = Database(url)
    queue_jobs(database, jobs, tenants)
    processes = min(PROCESSES, claimers)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with ProcessPoolExecutor(processes, context, _adopt, (barrier,)) as pool:
        futures = [pool.submit(drain, number, url, claimers // processes) for number in range(processes)]
        rate = combine([future.result() for future in futures])
    with database.read() as connection:
        check(connection, jobs)
    database.close()
    return rate


def check(connection: Connection, jobs: int) -> None:
    """Raises RuntimeError unless every job succeeded in its first attempt, with one `end` in its log."""
    once = connection.execute(
        text("SELECT count(*) FROM jobs WHERE state = 'succeeded' AND attempt = 1 AND fence = 1")
    ).scalar_one()
    ends, distinct = connection.execute(
        text("SELECT count(*), count(DISTINCT job_id) FROM events WHERE type = 'end'")
    ).one()
    if (once, ends, distinct) != (jobs, jobs, jobs):
        raise RuntimeError(f"of {jobs} jobs {once} ran exactly once, with {ends} ends of {distinct}")
    if connection.dialect.name == "postgresql":
        deadlocks = connection.execute(
            text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        ).scalar_one()
        if deadlocks:
            raise RuntimeError(f"{deadlocks} deadlocks")


@contextmanager
def _server(kinds: list[str]) -> Iterator[str | None]:
    if "postgres" not in kinds:
        yield None
        return
    with Postgres() as server:
        yield server.url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--claimers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--tenants", type=int, default=3)
    parser.add_argument("--databases", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--quick", action="store_true", help="few jobs and claimers: does it run at all?")
    given = parser.parse_args()
    end_in_good_order()
    jobs, claimers = (40, [1, 4]) if given.quick else (given.jobs, given.claimers)
    with _server(given.databases) as server_url:
        for kind in given.databases:
            for count in claimers:
                with migrated(kind, server_url) as url:
                    rate = measure(url, jobs, count, given.tenants)
                print(
                    f"{kind:9} {count:3} claimers: {rate.a_second:6.0f} jobs/s claimed and ended; a claim takes"
                    f" {percentile(rate.claims, 0.5) * 1000:.1f} ms (p99 {percentile(rate.claims, 0.99) * 1000:.1f});"
                    f" {rate.jobs} jobs once each, {rate.came_to_nothing} claims came to nothing",
                    flush=True,
                )


if __name__ == "__main__":
    main()
