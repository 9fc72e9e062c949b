"""What a supervisor writes of what a trainer reports, without a trainer."""

from array import array
from typing import Any

import pytest
from sqlalchemy import update

from core.queries import jobs
from core.tables import jobs as jobs_table
from tests.worker.bench import DIGITS, TENANT, Bench
from worker import reaper
from worker.claims import claim_next
from worker.ledger import Ledger
from worker.messages import CheckpointReference, CheckpointWritten, Points, Started


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
