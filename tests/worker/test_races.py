"""Two who write to one job at the same moment, and bytes that changed behind our back."""

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from api import transitions
from core.errors import Conflict
from core.states import TERMINAL
from core.tables import jobs as jobs_table
from tests.worker.bench import DIGITS, FEW_CHECKPOINTS, TENANT, Bench
from tests.worker.test_supervisor import same_run, trainer_of, undisturbed
from worker import reaper
from worker.claims import claim_next
from worker.ledger import Fenced, Ledger


def at_once(*actions: Callable[[], Any]) -> None:
    barrier = threading.Barrier(len(actions))

    def act(action: Callable[[], Any]) -> None:
        barrier.wait()
        action()

    threads = [threading.Thread(target=act, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def has_one_ending(bench: Bench, job_id: str, *states: str) -> None:
    job, events = bench.row(job_id), bench.events(job_id)
    assert job.state in states, job.error
    assert [event.seq for event in events] == list(range(1, job.next_seq))
    ends = [event for event in events if event.type == "end"]
    assert ends == events[-1:]
    assert ends[0].data["status"] == job.state
    told = [event.data["status"] for event in events if event.type == "status"]
    assert [status for status in told if status in TERMINAL] in ([job.state], [])


@pytest.mark.parametrize("pairs", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_of_a_cancel_and_a_completion_at_once_the_row_s_lock_lets_one_win(bench: Bench, pairs: int) -> None:
    winners = set()
    for _ in range(pairs):
        job_id = bench.submit(DIGITS | {"publish": None})
        claim = claim_next(bench.node, 0)
        assert claim is not None
        ledger = Ledger(bench.node.database, bench.node.store, claim, 20)
        answers: list[str] = []

        def cancel(job_id: str = job_id, answers: list[str] = answers) -> None:
            try:
                transitions.cancel(bench.node.database, TENANT, job_id, False)
                answers.append("accepted")
            except Conflict:
                answers.append("refused")

        def complete(ledger: Ledger = ledger) -> None:
            ledger.succeed({}, None, {})

        at_once(cancel, complete)

        has_one_ending(bench, job_id, "succeeded")
        asked = bench.row(job_id).cancel_requested_at is not None
        assert answers == ["accepted" if asked else "refused"]
        winners.add(asked)
    assert pairs < 1000 or winners == {True, False}


def test_of_two_reapers_one_takes_the_lost_job(bench: Bench) -> None:
    for _ in range(20):
        job_id = bench.submit(DIGITS)
        claim = claim_next(bench.node, 0)
        assert claim is not None
        with bench.node.database.write() as connection:
            connection.execute(update(jobs_table).where(jobs_table.c.id == job_id).values(lease_expires_at=0))
        taken: list[str] = []

        at_once(*[lambda taken=taken: taken.extend(reaper.reap(bench.node))] * 2)

        assert taken == [job_id]
        assert [event.seq for event in bench.events(job_id)] == [1, 2, 3, 4]
        with pytest.raises(Fenced):
            Ledger(bench.node.database, bench.node.store, claim, 20).commit()
        transitions.cancel(bench.node.database, TENANT, job_id, False)


@pytest.mark.parametrize("moments", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_cancel_at_any_moment_ends_in_cancelled_or_succeeded(bench: Bench, moments: int) -> None:
    chance = random.Random(7)
    for _ in range(moments):
        job_id = bench.submit(DIGITS)
        thread = bench.run_aside()
        threading.Event().wait(chance.uniform(0.0, 2.0))

        try:
            transitions.cancel(bench.node.database, TENANT, job_id, chance.random() < 0.3)
        except Conflict:
            assert bench.row(job_id).state == "succeeded"
        bench.finish(thread)

        has_one_ending(bench, job_id, "cancelled", "succeeded")


def test_three_wrong_bytes_in_the_newest_checkpoint_cost_time_and_nothing_else(bench: Bench) -> None:
    golden_id = undisturbed(bench, FEW_CHECKPOINTS)
    job_id = bench.submit(FEW_CHECKPOINTS | {"publish": None})
    thread = bench.run_aside()
    bench.wait_for_checkpoint(job_id, 3000)
    trainer_of(job_id).kill()
    bench.finish(thread)
    newest = bench.checkpoints(job_id)[0]
    file = Path(bench.node.settings.resolved_artifact_url) / newest.name
    content = bytearray(file.read_bytes())
    for offset in random.Random(7).sample(range(len(content)), 3):
        content[offset] ^= 0xFF
    file.write_bytes(content)

    bench.run()

    same_run(bench, job_id, golden_id)
    assert f"checkpoint {newest.name}" in " ".join(event.message for event in bench.events(job_id))
    for row in bench.checkpoints(job_id):
        bench.node.store.get(row.name, row.sha256)
