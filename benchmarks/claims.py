"""Many jobs on a few real workers: is each run exactly once, how fast, and what goes over the broker?

    python -m benchmarks.claims [--jobs 200] [--workers 4] [--slots 2] [--quick]

Starts Postgres, Valkey, one api and the workers, queues jobs of 50 steps by HTTP while the workers run, and waits
until all have ended. `--slots` is per worker: more than the machine has cores, on purpose. Fails when a job did not
run exactly once (state `succeeded`, one attempt, one claim and one `end` in its log), when Postgres found a
deadlock, or when more went over the broker than one bell a job and one pulse a worker every ten seconds.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, text

from benchmarks._fleet import Counts, Fleet, fleet, wait_until
from benchmarks._stacks import TINY, end_in_good_order, percentile
from core.queue import queue_for
from worker.tasks import PULSE_SECONDS

COUNTED = "counted"
SUBMITTERS = 4
LINES = 20
TELL_SECONDS = 30.0
PATIENCE_SECONDS = 1800.0

RECORD = text(
    "SELECT j.id, j.state, j.attempt, j.created_at,"
    " min(e.created_at) FILTER (WHERE e.type = 'status' AND e.data->>'status' = 'running') AS claimed_at,"
    " max(e.created_at) FILTER (WHERE e.type = 'end') AS ended_at,"
    " count(*) FILTER (WHERE e.type = 'status' AND e.data->>'status' = 'running') AS claims,"
    " count(*) FILTER (WHERE e.type = 'end') AS ends"
    " FROM jobs j JOIN events e ON e.job_id = j.id WHERE j.name = :name GROUP BY j.id"
)
OPEN = text("SELECT count(*) FROM jobs WHERE name = :name AND state IN ('queued', 'running')")
LOG = text("SELECT seq, type, attempt, message FROM events WHERE job_id = :id ORDER BY seq")
DEADLOCKS = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


@dataclass(frozen=True)
class Outcome:
    jobs: int
    once: int
    seconds: float  # from the first POST to the last end
    claims_a_second: float  # the middle 80 % of the claims
    wait_p50: float  # POST to claim
    deadlocks: int


def ran_once(row: Any) -> bool:
    return (row.state, row.attempt, row.claims, row.ends) == ("succeeded", 1, 1, 1)


def outcome(rows: list[Any], deadlocks: int) -> Outcome:
    """Of rows as `RECORD` answers them; times are in microseconds."""
    once = sum(ran_once(row) for row in rows)
    claims = sorted(row.claimed_at for row in rows)
    tenth = len(claims) // 10
    middle = claims[tenth : len(claims) - tenth]
    return Outcome(
        jobs=len(rows),
        once=once,
        seconds=(max(row.ended_at for row in rows) - min(row.created_at for row in rows)) / 1e6,
        claims_a_second=(len(middle) - 1) / max(1e-6, (middle[-1] - middle[0]) / 1e6),
        wait_p50=percentile([(row.claimed_at - row.created_at) / 1e6 for row in rows], 0.5),
        deadlocks=deadlocks,
    )


def allowed_messages(jobs: int, workers: int, seconds: float) -> int:
    """One bell a job, and pulses: those that fall into the time, and one more a worker at each edge of it."""
    return jobs + workers * (int(seconds / PULSE_SECONDS) + 2)


def submit(running: Fleet, jobs: int, name: str) -> float:
    """Seconds until every job had its 201."""
    began = time.monotonic()
    with running.client() as client, ThreadPoolExecutor(SUBMITTERS) as pool:
        bodies = [TINY | {"name": name, "training": TINY["training"] | {"seed": seed}} for seed in range(jobs)]
        list(pool.map(client.submit, bodies))
    return time.monotonic() - began


def drain(engine: Engine, name: str) -> None:
    """Blocks until none is left; says every now and then how many are."""
    told_at = time.monotonic()

    def none_left() -> bool:
        nonlocal told_at
        with engine.connect() as connection:
            left = connection.execute(OPEN, {"name": name}).scalar_one()
        if time.monotonic() > told_at + TELL_SECONDS:
            told_at = time.monotonic()
            print(f"  {left} left", flush=True)
        return bool(left == 0)

    wait_until(none_left, PATIENCE_SECONDS)


def measure(running: Fleet, jobs: int, workers: int, slots: int) -> tuple[Outcome, Counts, float]:
    """The outcome, what went over the broker, and the seconds that submitting took."""
    engine = create_engine(running.database_url)
    submit(running, workers * slots * 2, "warm")
    drain(engine, "warm")
    before = running.counts()
    submitting = submit(running, jobs, COUNTED)
    drain(engine, COUNTED)
    messages = running.counts().since(before)
    with engine.connect() as connection:
        rows = list(connection.execute(RECORD, {"name": COUNTED}))
        for row in [row for row in rows if not ran_once(row)][:3]:
            print(f"{row.id} is {row.state}; its log:")
            for event in connection.execute(LOG, {"id": row.id}):
                print(f"  {event.seq} attempt {event.attempt} {event.type}: {event.message}")
        deadlocks = connection.execute(DEADLOCKS).scalar_one()
    engine.dispose()
    return outcome(rows, deadlocks), messages, submitting


def faults(result: Outcome, messages: Counts, workers: int) -> list[str]:
    found = []
    if result.once != result.jobs:
        found.append(f"{result.jobs - result.once} jobs did not run exactly once")
    if result.deadlocks:
        found.append(f"{result.deadlocks} deadlocks")
    if messages.sent > allowed_messages(result.jobs, workers, result.seconds):
        found.append(f"{messages.sent} messages are more than one bell a job and the pulses")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="12 jobs on 2 workers: does it run at all?")
    given = parser.parse_args()
    end_in_good_order()
    jobs, workers, slots = (12, 2, 1) if given.quick else (given.jobs, given.workers, given.slots)
    with (
        tempfile.TemporaryDirectory() as temporary,
        fleet(Path(temporary), workers, {"EVENKEEL_SLOTS": str(slots)}) as running,
    ):
        result, messages, submitting = measure(running, jobs, workers, slots)
        left = running.left(queue_for(needs_cuda=False))
        complaints = running.complaints()
    print(
        f"{result.jobs} jobs of 50 steps, {workers} workers of {slots} slots: {result.once} ran exactly once,"
        f" {result.deadlocks} deadlocks\n"
        f"  {result.seconds:.1f} s from the first POST to the last end (POSTs: {submitting:.1f} s,"
        f" {jobs / submitting:.0f} a second)\n"
        f"  {result.claims_a_second:.1f} claims a second, {result.jobs / result.seconds * 60:.0f} jobs a minute;"
        f" median wait in the queue {result.wait_p50:.1f} s\n"
        f"  broker: {messages.sent} messages sent, {messages.received} received, {left} left,"
        f" {messages.sent / result.jobs:.2f} a job (pulses of the workers included)"
    )
    found = faults(result, messages, workers)
    if found:
        print("  the logs complain:", *complaints[:LINES], sep="\n    ")
        raise SystemExit("; ".join(found))


if __name__ == "__main__":
    main()
