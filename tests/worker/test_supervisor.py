"""A job under its supervisor: real trainer processes, a real database, real kills."""

import dataclasses
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from sqlalchemy import Connection, update

from core.bell import hear, open_bell
from core.db import Database
from core.errors import Unavailable
from core.queries import aliases, jobs, models
from core.tables import jobs as jobs_table
from core.tables import metric_points, metric_series
from tests.worker.bench import DIGITS, FEW_CHECKPOINTS, LONG, TENANT, Bench, trainer_of, wait_until
from worker import reaper
from worker.claims import claim_next


def undisturbed(bench: Bench, body: dict[str, Any]) -> str:
    job_id = bench.submit(body | {"publish": None})
    bench.run()
    assert bench.row(job_id).state == "succeeded"
    return job_id


def same_run(bench: Bench, job_id: str, golden_id: str) -> None:
    job, golden = bench.row(job_id), bench.row(golden_id)
    assert job.state == "succeeded", job.error
    assert job.result["weights_sha256"] == golden.result["weights_sha256"]
    assert bench.points(job_id) == bench.points(golden_id)
    seqs = [event.seq for event in bench.events(job_id)]
    assert seqs == list(range(1, job.next_seq))


def test_a_job_runs_to_its_end_and_its_log_has_no_gaps(bench: Bench) -> None:
    job_id = bench.submit(DIGITS)

    bench.run()

    job = bench.row(job_id)
    assert (job.state, job.error, job.step) == ("succeeded", None, 400)
    assert [event.seq for event in bench.events(job_id)] == list(range(1, job.next_seq))
    assert bench.types(job_id)[-2:] == ["status", "end"]
    assert [step for step, _ in bench.points(job_id)["train/loss"]] == list(range(1, 401))


def test_metrics_events_name_every_point_once(bench: Bench) -> None:
    job_id = bench.submit(DIGITS)

    bench.run()

    ranges = [
        range(event.data["first_step"], event.data["last_step"] + 1)
        for event in bench.events(job_id)
        if event.type == "metrics" and "train/loss" in event.data["series"]
    ]
    assert [step for steps in ranges for step in steps] == list(range(1, 401))


def test_the_last_two_checkpoints_and_the_best_are_kept(bench: Bench) -> None:
    job_id = bench.submit(DIGITS)

    bench.run()

    rows = bench.checkpoints(job_id)
    best = [row.step for row in rows if row.best]
    assert [row.step for row in rows][:2] == [400, 350]
    assert len(best) == 1
    assert {row.step for row in rows} == {400, 350, *best}
    assert bench.node.store.names(f"checkpoints/{job_id}") == sorted(row.name for row in rows)


def test_a_published_job_becomes_the_next_version_and_moves_the_alias(bench: Bench) -> None:
    for _ in range(2):
        bench.submit(DIGITS | {"name": "digits"})
        bench.run()

    with bench.node.database.read() as connection:
        model = connection.execute(models.by_name(TENANT, "digits")).one()
        versions = connection.execute(models.versions(model.id, 10, descending=False)).all()
        alias = connection.execute(aliases.one(model.id, "latest")).one()
    assert [row.version for row in versions] == [1, 2]
    assert alias.version == 2


def test_publish_null_exports_nothing(bench: Bench) -> None:
    job_id = bench.submit(DIGITS | {"publish": None})

    bench.run()

    assert bench.row(job_id).result["model"] is None
    assert bench.node.store.names("content") == []


@pytest.mark.parametrize("step", [1, 300, 1500])
def test_a_killed_trainer_is_followed_by_one_that_ends_with_the_same_weights_and_points(
    bench: Bench, step: int
) -> None:
    golden_id = undisturbed(bench, LONG)
    job_id = bench.submit(LONG | {"publish": None})

    thread = bench.run_aside()
    bench.wait_for_step(job_id, step)
    trainer_of(job_id).kill()
    bench.finish(thread)
    bench.run()

    assert bench.row(job_id).attempt == 2
    same_run(bench, job_id, golden_id)


def test_a_killed_forkserver_disturbs_no_running_job_and_the_next_one_starts(bench: Bench) -> None:
    golden_id = undisturbed(bench, LONG)
    job_id = bench.submit(LONG | {"publish": None})
    thread = bench.run_aside()
    bench.wait_for_step(job_id, 1)

    forkserver = psutil.Process(trainer_of(job_id).ppid())
    forkserver.kill()
    bench.finish(thread)
    next_id = undisturbed(bench, LONG)

    assert bench.row(job_id).attempt == 1
    same_run(bench, job_id, golden_id)
    same_run(bench, next_id, golden_id)


def test_cancel_stops_a_running_job_with_a_checkpoint(bench: Bench) -> None:
    job_id = bench.submit(LONG)
    thread = bench.run_aside()
    bench.wait_for_step(job_id, 1)

    with bench.node.database.write() as connection:
        assert connection.execute(jobs.request_cancel(TENANT, job_id, force=False)).one_or_none()
    bench.finish(thread)

    job = bench.row(job_id)
    assert job.state == "cancelled"
    assert bench.checkpoints(job_id)[0].step == job.step
    assert bench.types(job_id)[-1] == "end"


def test_a_forced_cancel_does_not_wait_for_the_trainer(bench: Bench) -> None:
    job_id = bench.submit(LONG)
    thread = bench.run_aside()
    bench.wait_for_step(job_id, 1)
    trainer = trainer_of(job_id)
    trainer.suspend()

    with bench.node.database.write() as connection:
        connection.execute(jobs.request_cancel(TENANT, job_id, force=True))
    bench.finish(thread)

    assert bench.row(job_id).state == "cancelled"
    wait_until(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE)


def test_a_paused_job_goes_on_where_it_was(bench: Bench) -> None:
    golden_id = undisturbed(bench, LONG)
    job_id = bench.submit(LONG | {"publish": None})
    thread = bench.run_aside()
    bench.wait_for_step(job_id, 1)

    with bench.node.database.write() as connection:
        connection.execute(jobs.request_pause(TENANT, job_id))
    bench.finish(thread)
    paused = bench.row(job_id)
    assert paused.state == "paused"
    with bench.node.database.write() as connection:
        assert connection.execute(jobs.resume(TENANT, job_id)).one_or_none()
    bench.run()

    same_run_but_for_requests(bench, job_id, golden_id)


def same_run_but_for_requests(bench: Bench, job_id: str, golden_id: str) -> None:
    job, golden = bench.row(job_id), bench.row(golden_id)
    assert job.state == "succeeded"
    assert job.result["weights_sha256"] == golden.result["weights_sha256"]
    assert bench.points(job_id) == bench.points(golden_id)


def test_a_drained_worker_gives_its_job_back_to_the_queue(bench: Bench) -> None:
    golden_id = undisturbed(bench, LONG)
    job_id = bench.submit(LONG | {"publish": None})
    thread = bench.run_aside()
    bench.wait_for_step(job_id, 1)

    bench.node.draining.set()
    bench.finish(thread)
    drained = bench.row(job_id)
    bench.node.draining.clear()
    bench.run()

    assert (drained.state, drained.attempts_without_progress) == ("queued", 0)
    same_run(bench, job_id, golden_id)


def test_a_supervisor_that_lost_its_lease_writes_nothing_and_ends_its_trainer(bench: Bench) -> None:
    job_id = bench.submit(LONG)
    thread = bench.run_aside()
    bench.wait_for_step(job_id, 1)
    trainer = trainer_of(job_id)

    with bench.node.database.write() as connection:
        connection.execute(update(jobs_table).where(jobs_table.c.id == job_id).values(lease_expires_at=0))
        taken = connection.execute(reaper_statement(bench)).all()
    after_the_reap = bench.row(job_id)
    bench.finish(thread)

    assert [row.id for row in taken] == [job_id]
    now = bench.row(job_id)
    assert (now.state, now.next_seq, now.step) == ("queued", after_the_reap.next_seq, after_the_reap.step)
    wait_until(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE)


def reaper_statement(bench: Bench) -> Any:
    return reaper.leases.reap(bench.node.settings.attempts_without_progress)


def test_the_reaper_takes_only_leases_that_have_expired(bench: Bench) -> None:
    job_id = bench.submit(LONG)
    bench.run_aside()
    bench.wait_for_step(job_id, 1)

    assert reaper.reap(bench.node) == []


def test_the_reaper_rings_for_what_it_puts_back(bench: Bench) -> None:
    job_id = bench.submit(LONG)
    assert claim_next(bench.node, 0) is not None  # by a worker that dies at once: nobody renews the lease
    bell = open_bell(bench.node.settings.home)
    with bench.node.database.write() as connection:
        connection.execute(update(jobs_table).where(jobs_table.c.id == job_id).values(lease_expires_at=0))
    hear(bell)

    taken = reaper.reap(bench.node)

    rings = hear(bell)
    os.close(bell)
    assert (taken, rings) == ([job_id], 1)


def test_a_lease_is_renewed_with_every_heartbeat_however_seldom_ticks_are(bench: Bench) -> None:
    slow = bench.node.settings.model_copy(update={"tick_seconds": 600, "heartbeat_seconds": 0.05})
    bench.node = dataclasses.replace(bench.node, settings=slow)
    job_id = bench.submit(LONG)
    bench.run_aside()
    bench.wait_for_step(job_id, 1)

    first = bench.row(job_id).lease_expires_at

    wait_until(lambda: bench.row(job_id).lease_expires_at > first)


def test_a_trainer_that_hangs_three_times_without_progress_fails_the_job(bench: Bench) -> None:
    bench.node = dataclasses.replace(bench.node, settings=bench.node.settings.model_copy(update={"stall_seconds": 1}))
    job_id = bench.submit(LONG)

    for _ in range(3):
        thread = bench.run_aside()
        os.kill(trainer_of(job_id).pid, signal.SIGSTOP)
        while thread.is_alive():
            forget_progress(bench, job_id)
            thread.join(0.02)

    job = bench.row(job_id)
    assert (job.state, job.error["code"]) == ("failed", "stalled")
    assert "reported nothing for 1 s" in " ".join(event.message for event in bench.events(job_id))


def forget_progress(bench: Bench, job_id: str) -> None:
    """As if the trainer had been stopped before its first step, however fast it was."""
    running = update(jobs_table).where(jobs_table.c.id == job_id, jobs_table.c.state == "running")
    with bench.node.database.write() as connection:
        connection.execute(running.values(attempts_without_progress=jobs_table.c.attempt))


def test_three_attempts_without_progress_fail_the_job(bench: Bench) -> None:
    job_id = bench.submit(DIGITS)

    for _ in range(3):
        from_claim(bench)

    job = bench.row(job_id)
    assert (job.state, job.error["code"]) == ("failed", "worker_lost")
    assert bench.types(job_id)[-1] == "end"


def from_claim(bench: Bench) -> None:
    """A worker that dies between its claim and its first word."""
    assert reaper.reclaim(bench.node) == []
    with bench.node.database.write() as connection:
        connection.execute(reaper.leases.claim_next(bench.node.owner(0), 60, cuda=False)).one()
    assert len(reaper.reclaim(bench.node)) == 1


def test_the_time_limit_ends_a_job_with_its_own_code(bench: Bench) -> None:
    job_id = bench.submit(LONG | {"training": LONG["training"] | {"steps": 1_000_000, "time_limit_seconds": 0.5}})

    bench.run()

    job = bench.row(job_id)
    assert (job.state, job.error["code"]) == ("failed", "deadline_exceeded")
    assert "time_limit_seconds = 0.5" in job.error["message"]
    assert bench.checkpoints(job_id)


def test_a_loss_that_is_not_finite_fails_the_job_and_keeps_the_last_checkpoint(bench: Bench) -> None:
    body = DIGITS | {"optimizer": {"kind": "sgd", "learning_rate": 1e6}, "batch_norm": False}
    job_id = bench.submit(body)

    bench.run()

    job = bench.row(job_id)
    assert (job.state, job.error["code"]) == ("failed", "non_finite_loss")


def test_other_hardware_rewinds_to_the_checkpoint_and_says_so(bench: Bench) -> None:
    golden_id = undisturbed(bench, FEW_CHECKPOINTS)
    job_id = bench.submit(FEW_CHECKPOINTS | {"publish": None})
    thread = bench.run_aside()
    bench.wait_for_steps_behind_a_checkpoint(job_id)
    trainer_of(job_id).kill()
    bench.finish(thread)
    with bench.node.database.write() as connection:
        connection.execute(update(jobs_table).where(jobs_table.c.id == job_id).values(fingerprint="another machine"))

    bench.run()

    assert "rewind" in bench.types(job_id)
    same_run(bench, job_id, golden_id)


def test_a_recomputed_value_that_differs_is_reported_and_recorded_anew(bench: Bench) -> None:
    golden_id = undisturbed(bench, FEW_CHECKPOINTS)
    job_id = bench.submit(FEW_CHECKPOINTS | {"publish": None})
    thread = bench.run_aside()
    bench.wait_for_steps_behind_a_checkpoint(job_id)
    trainer_of(job_id).kill()
    bench.finish(thread)
    tampered = bench.checkpoints(job_id)[0].step + 1
    tamper(bench, job_id, "train/loss", tampered)

    bench.run()

    [rewind] = [event for event in bench.events(job_id) if event.type == "rewind"]
    assert rewind.data == {"step": tampered - 1, "series": ["train/loss"]}
    same_run(bench, job_id, golden_id)


def tamper(bench: Bench, job_id: str, name: str, step: int) -> None:
    with bench.node.database.write() as connection:
        series = metric_series.select().where(metric_series.c.job_id == job_id, metric_series.c.name == name)
        series_id = connection.execute(series).one().id
        changed = connection.execute(
            update(metric_points)
            .where(metric_points.c.series_id == series_id, metric_points.c.step == step)
            .values(value=1234.5)
        )
        assert changed.rowcount == 1


class Flaky(Database):
    """Commits, and then loses the answer; or is away. Every third write, for a while."""

    def __init__(self, url: str, after_commit: bool) -> None:
        super().__init__(url)
        self._after_commit = after_commit
        self._writes = 0
        self.failures = 0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        self._writes += 1
        fails = self._writes % 3 == 0 and self.failures < 8
        if fails:
            self.failures += 1
        if fails and not self._after_commit:
            raise Unavailable("the database does not answer")
        with super().write() as connection:
            yield connection
        if fails:
            raise Unavailable("the answer to the commit was lost")


@pytest.mark.parametrize("after_commit", [False, True], ids=["before", "after"])
def test_a_database_that_fails_before_or_after_a_commit_loses_and_doubles_nothing(
    bench: Bench, after_commit: bool
) -> None:
    golden_id = undisturbed(bench, LONG)
    job_id = bench.submit(LONG | {"publish": None})
    flaky = Flaky(bench.node.settings.resolved_database_url, after_commit)
    shaky = Bench(dataclasses.replace(bench.node, database=flaky))

    shaky.run()

    assert flaky.failures >= 3
    same_run(bench, job_id, golden_id)
    flaky.close()
