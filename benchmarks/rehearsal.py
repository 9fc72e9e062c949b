"""What do N workers ask of Postgres, and where does it bend? A rehearsal in which only the training is left out.

    python -m benchmarks.rehearsal [--workers 10 100 200 500 1000] [--tick 1] [--points 30] [--seconds 20]
                                   [--shared-pool N] [--quick]

Each simulated worker has one slot and the real code of a worker: a pool of connections of its own, claims, one
transaction a tick (lease, metric points, event), polls, signs of life, its reaper. The trainer is replaced by
a sleeper that reports `--points` points in three series at every tick, and a job ends after `--job-ticks` ticks.
No worker has a thread: what is due goes to `--at-once` threads in four processes on the machine of the server.
With `--shared-pool` the workers share so many connections, as behind PgBouncer in transaction mode.

`in time`: ticks that were committed before the next one was due, of all that were due. `late`: how long after its
moment a tick was begun, which tells of the simulation and not of Postgres. `clients` is the CPU that the workers
cost, which in a cluster is spent on other machines; `others` is what the rest of this machine did meanwhile: figures
are good only where it is small. Where all together use up the machine, they say more of it than of Postgres.
"""

import argparse
import time
from dataclasses import dataclass

from sqlalchemy import create_engine, text

from benchmarks._server_load import Load, Moment
from benchmarks._sleepers import Plan, Seen, crowd
from benchmarks._stacks import Postgres, end_in_good_order, migrated, percentile, queue_jobs
from core.db import Database

BACKLOG = 500
TENANTS = 3
WORKERS_A_SECOND = 10
"""They start one after another, as each costs the machine some tenths of a second: a thousand that come at once are a
test of their own (`benchmarks.herd`)."""
CONNECTIONS_A_WORKER = 4
HEADER = (
    "workers  ticks/s  in time  late p99  tick p50    p99  claim p50    p99   tx/s  Postgres CPU  a tick  clients CPU"
    "      others  connections (each)  lock waits  WAL/tick   HOT  points/s  commonest wait"
)


@dataclass(frozen=True)
class Row:
    """One line of the table; CPU in cores, latencies in seconds."""

    workers: int
    ticks: float
    in_time: float
    late_p99: float
    tick_p50: float
    tick_p99: float
    claim_p50: float
    claim_p99: float
    transactions: float
    server_cpu: float
    client_cpu: float
    other_cpu: float
    connections: int
    connection_bytes: float
    lock_waits: float
    wal_a_tick: float
    hot: float
    points: float
    deadlocks: int
    wait: str

    def line(self) -> str:
        return (
            f"{self.workers:7} {self.ticks:8.1f} {self.in_time:8.1%} {self.late_p99 * 1000:6.0f} ms"
            f" {self.tick_p50 * 1000:6.0f} ms {self.tick_p99 * 1000:4.0f}ms"
            f" {self.claim_p50 * 1000:7.0f} ms {self.claim_p99 * 1000:4.0f}ms {self.transactions:6.0f}"
            f" {self.server_cpu:7.2f} cores {self.server_cpu / max(self.ticks, 1e-9) * 1000:4.1f} ms"
            f" {self.client_cpu:6.2f} cores {self.other_cpu:5.2f} cores"
            f" {self.connections:8} ({self.connection_bytes / 1e6:4.1f} MB) {self.lock_waits:11.2f}"
            f" {self.wal_a_tick / 1024:6.1f} kB {self.hot:5.0%} {self.points:9.0f}  {self.wait}"
        )


def row_of(workers: int, plan: Plan, seen: Seen, load: Load, moments: tuple[Moment, Moment]) -> Row:
    """Everything as a rate over the window."""
    before, after = moments
    seconds = after.at - before.at
    ticks = [done for done in seen.ticks if plan.begin_at <= done.ended <= plan.end_at]
    claims = [done.ended - done.began for done in seen.claims if plan.begin_at <= done.ended <= plan.end_at]
    took = [done.ended - done.began for done in ticks]
    updates = after.counters.updates - before.counters.updates
    server_cpu = (after.cpu_seconds - before.cpu_seconds) / seconds
    client_cpu = seen.cpu_seconds / seconds
    return Row(
        workers=workers,
        ticks=len(ticks) / seconds,
        in_time=in_time(workers, plan, seen),
        late_p99=percentile([done.began - done.due for done in ticks], 0.99),
        tick_p50=percentile(took, 0.5),
        tick_p99=percentile(took, 0.99),
        claim_p50=percentile(claims, 0.5),
        claim_p99=percentile(claims, 0.99),
        transactions=(after.counters.xact_commit - before.counters.xact_commit) / seconds,
        server_cpu=server_cpu,
        client_cpu=client_cpu,
        other_cpu=(after.machine_seconds - before.machine_seconds) / seconds - server_cpu - client_cpu,
        connections=load.connections,
        connection_bytes=load.connection_bytes,
        lock_waits=sum(load.lock_waits) / max(1, len(load.lock_waits)),
        wal_a_tick=float(after.counters.wal_bytes - before.counters.wal_bytes) / max(1, len(ticks)),
        hot=(after.counters.hot_updates - before.counters.hot_updates) / max(1, updates),
        points=(after.counters.points - before.counters.points) / seconds,
        deadlocks=after.counters.deadlocks,
        wait=load.commonest_wait(),
    )


def in_time(workers: int, plan: Plan, seen: Seen) -> float:
    """Share of the ticks due within the window that were committed before the next one was due. A worker that has
    fallen behind asks for fewer: those that it never came to are due all the same."""
    due = [done for done in seen.ticks if plan.begin_at <= done.due < plan.end_at - plan.tick_seconds]
    expected = workers * (plan.end_at - plan.begin_at - plan.tick_seconds) / plan.tick_seconds
    kept = sum(done.ended - done.due <= plan.tick_seconds for done in due)
    return kept / max(len(due), expected)


def rehearse(server_url: str, workers: int, given: argparse.Namespace) -> tuple[Row, list[str]]:
    """One line of the table, and what went wrong in the window."""
    with migrated("postgres", server_url) as url:
        starting = workers / WORKERS_A_SECOND
        fill(url, workers, (starting + given.settle + given.seconds) / given.tick / given.job_ticks)
        engine = create_engine(url)
        load = Load(engine)
        with crowd(workers) as sleepers:
            plan = plan_from(time.time(), url, starting, given)
            sleepers.start(plan)
            moments = load.window(plan.begin_at, plan.end_at)
            seen = sleepers.seen()
        engine.dispose()
    row = row_of(workers, plan, seen, load, moments)
    return row, [error for at, error in seen.errors if plan.begin_at <= at <= plan.end_at]


def fill(url: str, workers: int, jobs_each: float) -> None:
    """Queues as many jobs as the workers can take, and a backlog."""
    database = Database(url)
    queue_jobs(database, BACKLOG + int(workers * (2 + jobs_each)), TENANTS)
    database.close()
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def plan_from(now: float, url: str, starting: float, given: argparse.Namespace) -> Plan:
    """`starting`: seconds from the first worker's start to the last one's."""
    begin_at = now + starting + given.settle
    return Plan(
        url=url,
        tick_seconds=given.tick,
        reaper_seconds=given.reaper,
        node_seconds=given.node,
        points=given.points,
        job_ticks=given.job_ticks,
        at_once=given.at_once,
        shared_pool=given.shared_pool,
        start_at=now,
        started_at=now + starting,
        begin_at=begin_at,
        end_at=begin_at + given.seconds,
    )


def make_room(server: Postgres, connections: int) -> None:
    """Postgres takes 100 connections unless told otherwise."""
    admin = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"ALTER SYSTEM SET max_connections = {connections}"))
    admin.dispose()
    server.restart()


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the workers do, whatever is asked of them."""
    parser.add_argument("--tick", type=float, default=1.0, help="seconds between two transactions of a job")
    parser.add_argument("--node", type=float, default=10.0, help="seconds between two signs of life of a node")
    parser.add_argument("--reaper", type=float, default=10.0, help="seconds between two looks for expired leases")
    parser.add_argument("--points", type=int, default=30, help="metric points a tick")
    parser.add_argument("--job-ticks", type=int, default=30)
    parser.add_argument("--at-once", type=int, default=128, help="threads that do what is due")
    parser.add_argument("--shared-pool", type=int, help="connections of all workers together; default: their own")
    parser.add_argument("--quick", action="store_true", help="4 workers for a second or two: does it run at all?")


def told(errors: list[str]) -> None:
    for error in sorted(set(errors), key=errors.count, reverse=True)[:3]:
        print(f"        {errors.count(error)} times {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 200])
    parser.add_argument("--seconds", type=float, default=20.0, help="of the window that is measured")
    parser.add_argument("--settle", type=float, default=5.0, help="seconds from the last worker's start to the window")
    add_options(parser)
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
            told(errors)
            if row.deadlocks:
                raise SystemExit(f"{row.deadlocks} deadlocks")


if __name__ == "__main__":
    main()
