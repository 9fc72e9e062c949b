"""What do N workers ask of Postgres, and where does it bend? A rehearsal in which only the training is left out.

    python -m benchmarks.rehearsal [--workers 10 50 100 200 500 1000] [--tick 1] [--points 30] [--seconds 20] [--quick]

Each simulated worker has one slot and the real code of a worker: a pool of connections of its own, claims, one
transaction a tick (lease, metric points, event), polls, the node's heartbeat, its reaper. The trainer is replaced by
a sleeper that reports `--points` points in three series at every tick, and a job ends after `--job-ticks` ticks.
The workers live in up to forty processes on the machine of the server: `clients` is the CPU that they cost, which
in a cluster is spent on other machines; `others` is what the rest of this machine did meanwhile: figures are good
only where it is small. When all together have used up the machine, ticks come later than they
are due (`done` falls below 100 %), and latencies say more of this machine than of Postgres.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from sqlalchemy import create_engine, text

from benchmarks import _sleepers
from benchmarks._server_load import Load, Moment
from benchmarks._sleepers import Plan, Seen
from benchmarks._stacks import Postgres, end_in_good_order, migrated, percentile, queue_jobs
from core.db import Database

PROCESSES = 40  # threads of one process wait for its interpreter lock, which workers of a cluster do not share
BACKLOG = 500
TENANTS = 3
WORKERS_A_SECOND = 15
"""They start one after another: a thousand that connect at once are a test of their own."""
CONNECTIONS_A_WORKER = 4
HEADER = (
    "workers  ticks/s  done  tx/s  Postgres CPU  a tick  clients CPU      others  tick p50    p99  claim p50"
    "  connections  lock waits  WAL/tick   HOT  points/s  commonest wait"
)


@dataclass(frozen=True)
class Row:
    """One line of the table; CPU in cores, latencies in seconds."""

    workers: int
    ticks: float
    done: float
    transactions: float
    server_cpu: float
    client_cpu: float
    other_cpu: float
    tick_p50: float
    tick_p99: float
    claim_p50: float
    connections: int
    lock_waits: float
    wal_a_tick: float
    hot: float
    points: float
    deadlocks: int
    wait: str

    def line(self) -> str:
        return (
            f"{self.workers:7} {self.ticks:8.1f} {self.done:5.0%} {self.transactions:5.0f} {self.server_cpu:7.2f} cores"
            f" {self.server_cpu / max(self.ticks, 1e-9) * 1000:4.1f} ms {self.client_cpu:6.2f} cores"
            f" {self.other_cpu:5.2f} cores"
            f" {self.tick_p50 * 1000:6.0f} ms {self.tick_p99 * 1000:5.0f}ms {self.claim_p50 * 1000:7.0f} ms"
            f" {self.connections:12} {self.lock_waits:11.2f} {self.wal_a_tick / 1024:6.1f} kB {self.hot:5.0%}"
            f" {self.points:9.0f}  {self.wait}"
        )


def row_of(workers: int, plan: Plan, seen: list[Seen], load: Load, moments: tuple[Moment, Moment]) -> Row:
    """Everything as a rate over the window."""
    before, after = moments
    seconds = after.at - before.at
    ticks = [value for one in seen for value in one.ticks]
    updates = after.counters.updates - before.counters.updates
    server_cpu = (after.cpu_seconds - before.cpu_seconds) / seconds
    client_cpu = sum(one.cpu_seconds for one in seen) / seconds
    return Row(
        workers=workers,
        ticks=len(ticks) / seconds,
        done=len(ticks) * plan.tick_seconds / seconds / workers,
        transactions=(after.counters.xact_commit - before.counters.xact_commit) / seconds,
        server_cpu=server_cpu,
        client_cpu=client_cpu,
        other_cpu=(after.machine_seconds - before.machine_seconds) / seconds - server_cpu - client_cpu,
        tick_p50=percentile(ticks, 0.5),
        tick_p99=percentile(ticks, 0.99),
        claim_p50=percentile([value for one in seen for value in one.claims], 0.5),
        connections=load.connections,
        lock_waits=sum(load.lock_waits) / max(1, len(load.lock_waits)),
        wal_a_tick=float(after.counters.wal_bytes - before.counters.wal_bytes) / max(1, len(ticks)),
        hot=(after.counters.hot_updates - before.counters.hot_updates) / max(1, updates),
        points=(after.counters.points - before.counters.points) / seconds,
        deadlocks=after.counters.deadlocks,
        wait=load.commonest_wait(),
    )


def rehearse(server_url: str, workers: int, given: argparse.Namespace) -> tuple[Row, list[str]]:
    """One line of the table, and what went wrong in the window."""
    processes = min(PROCESSES, workers)
    shares = [workers // processes + (number < workers % processes) for number in range(processes)]
    context = multiprocessing.get_context("spawn")
    with migrated("postgres", server_url) as url:
        fill(url, workers, given)
        engine = create_engine(url)
        load = Load(engine)
        with ProcessPoolExecutor(processes, context, _sleepers.adopt, (context.Barrier(processes),)) as pool:
            for future in [pool.submit(_sleepers.meet) for _ in range(processes)]:
                future.result()
            plan = plan_from(time.time(), url, workers, given)
            futures = [
                pool.submit(_sleepers.run, sum(shares[:number]), share, plan) for number, share in enumerate(shares)
            ]
            moments = load.window(plan.begin_at, plan.end_at)
            seen = [future.result() for future in futures]
        engine.dispose()
    return row_of(workers, plan, seen, load, moments), [error for one in seen for error in one.errors]


def fill(url: str, workers: int, given: argparse.Namespace) -> None:
    """Queues as many jobs as the workers can take, and a backlog."""
    ticks = (workers / WORKERS_A_SECOND + given.settle + given.seconds) / given.tick
    database = Database(url)
    queue_jobs(database, BACKLOG + int(workers * (2 + ticks / given.job_ticks)), TENANTS)
    database.close()
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def plan_from(now: float, url: str, workers: int, given: argparse.Namespace) -> Plan:
    started_at = now + workers / WORKERS_A_SECOND
    begin_at = started_at + given.settle
    end_at = begin_at + given.seconds
    return Plan(
        url,
        given.tick,
        given.heartbeat,
        given.reaper,
        given.points,
        given.job_ticks,
        now,
        started_at,
        begin_at,
        end_at,
    )


def make_room(server: Postgres, connections: int) -> None:
    """Postgres takes 100 connections unless told otherwise."""
    admin = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"ALTER SYSTEM SET max_connections = {connections}"))
    admin.dispose()
    server.restart()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--tick", type=float, default=1.0, help="seconds between two transactions of a job")
    parser.add_argument("--heartbeat", type=float, default=5.0, help="seconds between two signs of life of a node")
    parser.add_argument("--reaper", type=float, default=10.0, help="seconds between two looks for expired leases")
    parser.add_argument("--points", type=int, default=30, help="metric points a tick")
    parser.add_argument("--job-ticks", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the window that is measured")
    parser.add_argument("--settle", type=float, default=5.0, help="seconds from the last worker's start to the window")
    parser.add_argument("--quick", action="store_true", help="4 workers for a second: does it run at all?")
    given = parser.parse_args()
    end_in_good_order()
    if given.quick:
        given.workers, given.tick, given.settle, given.seconds = [4], 0.2, 1.0, 1.0
    with Postgres() as server:
        make_room(server, 100 + CONNECTIONS_A_WORKER * max(given.workers))
        print(HEADER)
        for workers in given.workers:
            row, errors = rehearse(server.url, workers, given)
            print(row.line(), flush=True)
            for error in sorted(set(errors))[:3]:
                print(f"        {errors.count(error)} times {error}")
            if row.deadlocks:
                raise SystemExit(f"{row.deadlocks} deadlocks")


if __name__ == "__main__":
    main()
