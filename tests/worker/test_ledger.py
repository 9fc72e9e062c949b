"""What a supervisor writes of what a trainer reports, without a trainer."""

from array import array
from typing import Any

import pytest
from sqlalchemy import update

from core.queries import jobs, layers
from core.tables import jobs as jobs_table
from tests.worker.bench import DIGITS, TENANT, Bench
from worker import reaper
from worker.claims import claim_next
from worker.ledger import Fenced, Ledger
from worker.messages import CheckpointReference, CheckpointWritten, LayersReported, LogLine, Points, Started
from worker.records import KEPT_REPORTS


def claimed(bench: Bench) -> Ledger:
    """The ledger of an attempt that has just claimed the only job."""
    claim = claim_next(bench.node, 0)
    assert claim is not None
    return Ledger(bench.node.database, bench.node.store, claim, 20)


def losses(first: int, values: list[float]) -> Points:
    return Points({"train/loss": (array("q", range(first, first + len(values))), array("d", values))})


def checkpoint(step: int, best: bool = False) -> CheckpointWritten:
    return CheckpointWritten(CheckpointReference(f"c-{step}", "0" * 64, 1, step), complete=False, best=best)


def data_of(bench: Bench, job_id: str, type_: str) -> list[dict[str, Any]]:
    return [event.data for event in bench.events(job_id) if event.type == type_]


def second_attempt(bench: Bench, job_id: str, fingerprint: str = "cpu") -> Ledger:
    """Ten points were recorded, with a checkpoint of step 4; its worker died, and the job is claimed again."""
    first = claimed(bench)
    first.begin(Started("cpu", 0))
    first.points(losses(1, [1.0] * 10))
    first.checkpoint(checkpoint(4))
    first.commit()
    reaper.reclaim(bench.node)
    second = claimed(bench)
    second.begin(Started(fingerprint, 4))
    return second


def test_a_difference_is_told_once_however_the_points_behind_it_arrive(bench: Bench) -> None:
    job_id = bench.submit(DIGITS)
    ledger = second_attempt(bench, job_id)

    ledger.points(losses(5, [1.0, 2.0, 2.0]))
    ledger.checkpoint(checkpoint(7))
    ledger.points(losses(8, [2.0, 2.0, 2.0, 2.0]))
    ledger.commit()
    ledger.points(losses(12, [2.0]))
    ledger.commit()

    assert data_of(bench, job_id, "rewind") == [{"step": 5, "series": ["train/loss"]}]
    ranges = [(data["first_step"], data["last_step"]) for data in data_of(bench, job_id, "metrics")]
    assert ranges == [(1, 10), (6, 7), (8, 11), (12, 12)]
    assert bench.points(job_id)["train/loss"] == [(step, 1.0 if step < 6 else 2.0) for step in range(1, 13)]


def test_a_pause_that_was_asked_for_while_the_worker_drained_is_kept(bench: Bench) -> None:
    job_id = bench.submit(DIGITS)
    ledger = claimed(bench)
    with bench.node.database.write() as connection:
        connection.execute(jobs.request_pause(TENANT, job_id)).one()

    ledger.put_back("queued", "the worker is shutting down")

    assert bench.row(job_id).state == "paused"
    assert data_of(bench, job_id, "status")[-1] == {"status": "paused"}


@pytest.mark.parametrize("state", ["paused", "queued"])
def test_a_job_that_is_given_up_stands_at_the_last_step_that_it_recorded(bench: Bench, state: str) -> None:
    job_id = bench.submit(DIGITS)
    ledger = claimed(bench)
    ledger.points(losses(1, [1.0] * 5))
    ledger.commit()
    ledger.points(losses(6, [1.0] * 3))

    ledger.put_back(state, "given up")

    assert bench.row(job_id).step == bench.points(job_id)["train/loss"][-1][0] == 8


@pytest.mark.parametrize("loss", ["reaped", "reclaimed", "renewed"])
def test_time_in_which_nobody_held_the_lease_does_not_count_as_running(bench: Bench, loss: str) -> None:
    job_id = bench.submit(DIGITS)
    ledger = claimed(bench)
    three_days_ago = bench.row(job_id).heartbeat_at - 3 * 86_400_000_000
    with bench.node.database.write() as connection:
        times = {"heartbeat_at": three_days_ago, "lease_expires_at": three_days_ago + 20_000_000}
        connection.execute(update(jobs_table).where(jobs_table.c.id == job_id).values(**times))

    {"reaped": reaper.reap, "reclaimed": reaper.reclaim, "renewed": lambda _: ledger.commit()}[loss](bench.node)

    assert bench.row(job_id).running_us == 20_000_000


def test_a_beginning_whose_answer_was_lost_is_told_once(bench: Bench) -> None:
    job_id = bench.submit(DIGITS)
    ledger = second_attempt(bench, job_id, "another machine")

    ledger.begin(Started("another machine", 4))

    assert data_of(bench, job_id, "rewind") == [{"step": 4}]
    assert bench.points(job_id)["train/loss"] == [(step, 1.0) for step in range(1, 5)]


def reported(bench: Bench, job_id: str) -> dict[int, Any]:
    """The reports on layers by step."""
    with bench.node.database.read() as connection:
        steps = list(connection.execute(layers.steps(job_id)).scalars())
        return {step: connection.execute(layers.newest(job_id, step)).one().layers for step in steps}


def report(step: int, updates: int, final: bool = False) -> LayersReported:
    return LayersReported(step, final, [{"name": "hidden1.batch_norm", "updates": updates}])


def test_reports_on_layers_are_written_with_the_tick_and_the_last_of_a_step_counts(bench: Bench) -> None:
    job_id = bench.submit(DIGITS)
    ledger = claimed(bench)
    ledger.begin(Started("cpu", 0))

    ledger.layers(report(10, 10))
    ledger.layers(report(20, 20))
    ledger.layers(report(20, 21, final=True))
    before = reported(bench, job_id)
    ledger.commit()
    ledger.commit()

    assert before == {}
    assert {step: told[0]["updates"] for step, told in reported(bench, job_id).items()} == {10: 10, 20: 21}


def test_only_the_newest_reports_are_kept(bench: Bench) -> None:
    job_id = bench.submit(DIGITS)
    ledger = claimed(bench)
    for step in range(1, KEPT_REPORTS + 6):
        ledger.layers(report(step, step))

    ledger.commit()

    assert list(reported(bench, job_id)) == list(range(6, KEPT_REPORTS + 6))


@pytest.mark.parametrize(("fingerprint", "kept"), [("cpu", [2, 4, 8]), ("another machine", [2, 4])])
def test_reports_behind_the_checkpoint_are_kept_where_the_bits_will_be_the_same(
    bench: Bench, fingerprint: str, kept: list[int]
) -> None:
    job_id = bench.submit(DIGITS)
    first = claimed(bench)
    first.begin(Started("cpu", 0))
    first.points(losses(1, [1.0] * 10))
    for step in (2, 4, 8):
        first.layers(report(step, step))
    first.checkpoint(checkpoint(4))
    first.commit()
    reaper.reclaim(bench.node)

    claimed(bench).begin(Started(fingerprint, 4))

    assert list(reported(bench, job_id)) == kept


def test_a_fenced_worker_writes_no_report(bench: Bench) -> None:
    job_id = bench.submit(DIGITS)
    ledger = claimed(bench)
    reaper.reclaim(bench.node)
    ledger.layers(report(10, 10))

    with pytest.raises(Fenced):
        ledger.commit()

    assert reported(bench, job_id) == {}


def test_a_log_line_carries_its_figures_into_the_event(bench: Bench) -> None:
    job_id = bench.submit(DIGITS)
    ledger = claimed(bench)

    ledger.log(LogLine("warning", "a gap", 7, {"kind": "gap", "gap": {"large": True}}))
    ledger.commit()

    assert data_of(bench, job_id, "log") == [{"step": 7, "kind": "gap", "gap": {"large": True}}]
