"""What the benchmarks make of what they saw, on figures that one can check by hand."""

import math
import os
import subprocess
import sys
from collections import Counter
from subprocess import PIPE
from types import SimpleNamespace

import pytest

from benchmarks._fleet import Counts, counts_in
from benchmarks._server_load import Load, Moment, server_cpu_seconds
from benchmarks._sleepers import SERIES, Done, Plan, Seen, invented
from benchmarks._stacks import environment, percentile
from benchmarks.claim_rate import Drained, combine
from benchmarks.claims import Outcome, allowed_messages, faults, outcome
from benchmarks.herd import recovery
from benchmarks.rehearsal import in_time, row_of

SECOND = 1_000_000


def job(number: int, **changes: object) -> SimpleNamespace:
    """One that was queued at 0, claimed at its number and ended a second later."""
    row = {
        "state": "succeeded",
        "attempt": 1,
        "claims": 1,
        "ends": 1,
        "created_at": 0,
        "claimed_at": number * SECOND,
        "ended_at": (number + 1) * SECOND,
    }
    return SimpleNamespace(**row | changes)


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(100, 0, -1)]

    assert percentile(values, 0.5) == 51.0
    assert percentile(values, 0.99) == 100.0
    assert math.isnan(percentile([], 0.5))


def test_only_settings_of_the_benchmark_reach_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENKEEL_SLOTS", "7")

    with environment({"EVENKEEL_BROKER_URL": "redis://there"}):
        inside = {name: value for name, value in os.environ.items() if name.startswith("EVENKEEL_")}

    assert inside == {"EVENKEEL_BROKER_URL": "redis://there"}
    assert os.environ["EVENKEEL_SLOTS"] == "7"
    assert "EVENKEEL_BROKER_URL" not in os.environ


def test_jobs_that_were_claimed_once_a_second_are_one_claim_a_second() -> None:
    result = outcome([job(number) for number in range(20)], deadlocks=0)

    assert result == Outcome(jobs=20, once=20, seconds=20.0, claims_a_second=1.0, wait_p50=10.0, deadlocks=0)


@pytest.mark.parametrize("change", [{"attempt": 2}, {"claims": 2}, {"ends": 2}, {"ends": 0}, {"state": "failed"}])
def test_a_job_that_did_not_run_exactly_once_is_a_fault(change: dict[str, object]) -> None:
    result = outcome([*(job(number) for number in range(4)), job(4, **change)], deadlocks=0)

    assert faults(result, Counts(5, 5), workers=1) == ["1 jobs did not run exactly once"]


def test_more_than_a_bell_a_job_and_the_pulses_are_a_flood() -> None:
    result = outcome([job(number) for number in range(20)], deadlocks=0)
    allowed = allowed_messages(20, workers=2, seconds=20.0)

    assert allowed == 20 + 2 * (2 + 2)
    assert faults(result, Counts(allowed, allowed), workers=2) == []
    assert len(faults(result, Counts(allowed + 1, allowed), workers=2)) == 1


def test_messages_are_counted_by_the_commands_that_carry_them() -> None:
    before = counts_in({"cmdstat_lpush": {"calls": 2}})
    after = counts_in({"cmdstat_lpush": {"calls": 7}, "cmdstat_hset": {"calls": 4}})

    assert after.since(before) == Counts(sent=5, received=4)


def test_claimers_of_several_processes_are_measured_from_the_first_to_the_last() -> None:
    rate = combine([Drained(10.0, 12.0, [0.1, 0.2], 1), Drained(11.0, 14.0, [0.3, 0.4], 0)])

    assert (rate.jobs, rate.seconds, rate.a_second, rate.came_to_nothing) == (4, 4.0, 1.0, 1)


def test_invented_points_go_on_where_the_last_tick_ended() -> None:
    columns = invented(after_step=10, steps=2).columns

    assert list(columns) == list(SERIES)
    assert all(list(steps) == [11, 12] and list(values) == [1 / 11, 1 / 12] for steps, values in columns.values())


def counters(**values: int) -> SimpleNamespace:
    names = ("xact_commit", "wal_bytes", "updates", "hot_updates", "points", "deadlocks")
    return SimpleNamespace(**dict.fromkeys(names, 0) | values)


def plan() -> Plan:
    """A tick a second, and ten of them in the window."""
    return Plan("", 1.0, 10.0, 10.0, 30, 30, 8, None, start_at=0.0, started_at=0.0, begin_at=0.0, end_at=10.0)


def on_time(worker: int, ticks: int) -> list[Done]:
    """One a second from 0 on, begun 0.1 s after it was due, and committed 0.2 s later."""
    return [Done(worker, float(number), number + 0.1, number + 0.3) for number in range(ticks)]


def test_a_line_of_the_rehearsal_is_rates_over_its_window() -> None:
    load = Load(None, 3, 2e6, lock_waits=[0, 2], waits=Counter({"IO:WalSync": 3, "CPU": 1}))  # type: ignore[arg-type]
    before = Moment(0.0, 1.0, 0.0, counters())
    end = counters(xact_commit=40, wal_bytes=20_480, updates=10, hot_updates=5, points=600, deadlocks=0)
    seen = Seen(on_time(0, 10) + on_time(1, 12), [Done(0, 5.0, 5.0, 5.5), Done(1, 20.0, 20.0, 29.0)], [], 1.0)

    row = row_of(2, plan(), seen, load, (before, Moment(10.0, 3.0, 4.0, end)))

    assert (row.ticks, row.in_time, row.transactions) == (2.0, 1.0, 4.0)
    assert (row.server_cpu, row.client_cpu, row.other_cpu) == pytest.approx((0.2, 0.1, 0.1))
    assert (row.late_p99, row.tick_p50, row.tick_p99, row.claim_p50) == pytest.approx((0.1, 0.2, 0.2, 0.5))
    assert (row.connections, row.connection_bytes, row.lock_waits) == (3, 2e6, 1.0)
    assert (row.wal_a_tick, row.hot, row.points, row.wait) == (1024.0, 0.5, 60.0, "IO:WalSync 75%")


def test_a_tick_is_in_time_when_it_is_committed_before_the_next_is_due() -> None:
    half = [done._replace(ended=done.due + 1.5) if done.worker else done for done in on_time(0, 9) + on_time(1, 9)]

    assert in_time(2, plan(), Seen(on_time(0, 9) + on_time(1, 9))) == 1.0
    assert in_time(2, plan(), Seen(half)) == 0.5


def test_ticks_that_a_worker_never_came_to_are_not_in_time() -> None:
    assert in_time(2, plan(), Seen(on_time(0, 9))) == 0.5
    assert in_time(1, plan(), Seen([])) == 0.0


def test_a_worker_has_recovered_with_its_first_tick_that_began_after_the_disturbance() -> None:
    seen = Seen([Done(0, 3, 3.0, 6.0), Done(0, 6, 6.5, 7.0), Done(0, 8, 8.0, 8.5), Done(1, 9, 9.0, 9.5)])
    seen.errors = [(4.5, "away"), (5.5, "away"), (20.0, "much later")]

    found = recovery(3, seen, disturbed_at=4.0, moment=5.0, until=10.0)

    assert (found.workers, found.firsts, found.refused) == (3, [2.0, 4.5], 2)


def test_what_a_process_and_its_children_have_used_is_counted_when_they_have_ended_too() -> None:
    busy = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"]
    before = server_cpu_seconds(os.getpid())
    with subprocess.Popen([*busy[:2], f"{busy[2]}\nprint(1, flush=True)\ninput()"], stdin=PIPE, stdout=PIPE) as living:
        assert living.stdout is not None
        living.stdout.readline()
        while_it_lives = server_cpu_seconds(os.getpid())
        living.communicate(b"\n")

    assert while_it_lives - before >= 0.25  # the kernel counts in hundredths
    assert server_cpu_seconds(os.getpid()) >= while_it_lives
