"""What happens when N workers come at once, and when Postgres restarts under all of them?

    python -m benchmarks.herd [--workers 100 1000] [--tick 5] [--seconds 45] [--shared-pool N] [--quick]

The simulated workers of `benchmarks.rehearsal` start within `--within` seconds, and run for `--seconds`; then the
server is stopped without a word to its clients and started again, and they run for as long once more. Told of both:
when the workers had their first tick committed after it, what was refused meanwhile, and how many leases were lost.
Fails when a job was claimed again although its lease was not lost, or Postgres found a deadlock.
"""

import argparse
import threading
import time
from dataclasses import dataclass, replace

from sqlalchemy import Connection, create_engine, text

from benchmarks._sleepers import Done, Seen, crowd
from benchmarks._stacks import Postgres, end_in_good_order, migrated, percentile
from benchmarks.rehearsal import CONNECTIONS_A_WORKER, add_options, fill, make_room, plan_from, told

RECORD = text(
    "SELECT coalesce(sum(attempt), 0) AS claims, count(*) FILTER (WHERE attempt > 0) AS jobs,"
    " coalesce(sum(fence - attempt), 0) AS losses, coalesce(sum(attempt - 1) FILTER (WHERE attempt > 0), 0) AS repeated"
    " FROM jobs"
)
DEADLOCKS = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


@dataclass(frozen=True)
class Recovery:
    """Seconds from a disturbance to the first tick after it, of one worker after the other."""

    workers: int
    firsts: list[float]  # of those that had one
    refused: int

    def line(self) -> str:
        return (
            f"{len(self.firsts)} of {self.workers} workers had a tick: half of them after"
            f" {percentile(self.firsts, 0.5):.1f} s, 95 % after {percentile(self.firsts, 0.95):.1f} s, the last after"
            f" {max(self.firsts, default=float('nan')):.1f} s; {self.refused} times the database was not to be had"
        )


def recovery(workers: int, seen: Seen, disturbed_at: float, moment: float, until: float) -> Recovery:
    """Seconds count from `moment`, for ticks that were begun after it; refusals from the disturbance."""
    firsts: dict[int, Done] = {}
    for done in sorted(seen.ticks, key=lambda done: done.ended):
        if moment <= done.began and done.ended <= until:
            firsts.setdefault(done.worker, done)
    refused = sum(disturbed_at <= at <= until for at, _ in seen.errors)
    return Recovery(workers, [done.ended - moment for done in firsts.values()], refused)


def disturb(server: Postgres, workers: int, given: argparse.Namespace) -> bool:
    """Prints what happened; whether all was well."""
    with migrated("postgres", server.url) as url:
        fill(url, workers, 2 * given.seconds / given.tick / given.job_ticks)
        with crowd(workers) as sleepers:
            now = time.time()
            plan = plan_from(now, url, given.within, given)
            plan = replace(plan, begin_at=now, end_at=now + 2 * given.seconds)
            sleepers.start(plan)
            threading.Event().wait(now + given.seconds - time.time())
            stopped_at = time.time()
            server.restart()
            back_at = time.time()
            seen = sleepers.seen()
        start = recovery(workers, seen, now, now, stopped_at)
        print(f"{workers} workers that come within {given.within:g} s: {start.line()}")
        again = recovery(workers, seen, stopped_at, back_at, plan.end_at)
        print(f"Postgres away for {back_at - stopped_at:.1f} s, from its return: {again.line()}", flush=True)
        told([error for _, error in seen.errors])
        engine = create_engine(url)
        with engine.connect() as connection:
            well = _well(connection)
        engine.dispose()
    return well


def _well(connection: Connection) -> bool:
    row = connection.execute(RECORD).one()
    deadlocks = connection.execute(DEADLOCKS).scalar_one()
    print(f"{row.jobs} jobs, {row.claims} claims, {row.losses} leases lost, {deadlocks} deadlocks")
    return bool(row.repeated <= row.losses and deadlocks == 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[100])
    parser.add_argument("--within", type=float, default=0.0, help="seconds from the first worker's start to the last's")
    parser.add_argument("--seconds", type=float, default=45.0, help="from the start to the restart, and to the end")
    add_options(parser)
    parser.set_defaults(tick=5.0)
    given = parser.parse_args()
    given.settle = 0.0
    end_in_good_order()
    if given.quick:
        given.workers, given.tick, given.seconds = [4], 0.2, 8.0
    with Postgres() as server:
        make_room(server, 100 + CONNECTIONS_A_WORKER * max(given.workers))
        for workers in given.workers:
            if not disturb(server, workers, given):
                raise SystemExit("a job was claimed again although its lease was not lost, or there was a deadlock")


if __name__ == "__main__":
    main()
