"""What a supervisor does about trainers that do not start, do not listen, or stop in the middle of a word."""

import dataclasses
import os
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.context import ForkServerProcess
from typing import Any, cast

import pytest
from sqlalchemy import Connection

from core.db import Database
from core.queries import jobs
from tests.worker.bench import DIGITS, TENANT, Bench, wait_until
from tests.worker.test_supervisor import trainer_of
from worker import forkserver, reaper, supervisor
from worker.claims import claim_next
from worker.forkserver import Trainer, TrainerGone
from worker.ledger import Ledger
from worker.messages import PhaseBegan, Stopped
from worker.supervisor import Watch


class DeafTrainer:
    """Lives, says which phase it is in, and obeys nothing."""

    def __init__(self, *phases: str) -> None:
        self.told: list[str] = []
        self._words = [PhaseBegan(phase) for phase in phases]

    def receive(self, timeout_seconds: float) -> PhaseBegan | None:
        if self._words:
            return self._words.pop(0)
        threading.Event().wait(timeout_seconds)
        return None

    def tell(self, command: str) -> None:
        self.told.append(command)

    def kill(self) -> None:
        pass


def test_a_cancel_behind_a_pause_waits_for_its_own_grace_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.1)
    job_id = bench.submit(DIGITS)
    claim = claim_next(bench.node, 0)
    assert claim is not None
    trainer: Any = DeafTrainer()
    watch = Watch(bench.node, claim, trainer, Ledger(bench.node.database, bench.node.store, claim, 20))
    endings: list[Any] = []
    thread = threading.Thread(target=lambda: endings.append(watch.until_the_end()), daemon=True)

    with bench.node.database.write() as connection:
        connection.execute(jobs.request_pause(TENANT, job_id)).one()
    thread.start()
    wait_until(lambda: trainer.told == ["pause"])
    with bench.node.database.write() as connection:
        connection.execute(jobs.request_cancel(TENANT, job_id, force=False)).one()
    thread.join(5)

    assert trainer.told == ["pause", "cancel"]
    assert endings == [Stopped("cancel", 0)]


@pytest.mark.parametrize("phase", ["compiling", "population_statistics", "exporting"])
@pytest.mark.parametrize("command", ["cancel", "pause"])
def test_a_job_that_is_not_training_is_stopped_at_once(bench: Bench, phase: str, command: str) -> None:
    job_id = bench.submit(DIGITS)
    claim = claim_next(bench.node, 0)
    assert claim is not None
    trainer: Any = DeafTrainer("training", phase)
    watch = Watch(bench.node, claim, trainer, Ledger(bench.node.database, bench.node.store, claim, 20))
    endings: list[Any] = []
    thread = threading.Thread(target=lambda: endings.append(watch.until_the_end()), daemon=True)

    with bench.node.database.write() as connection:
        asked = (
            jobs.request_pause(TENANT, job_id)
            if command == "pause"
            else jobs.request_cancel(TENANT, job_id, force=False)
        )
        connection.execute(asked).one()
    thread.start()
    thread.join(supervisor.GRACE_SECONDS / 2)

    assert endings == [Stopped(command, 0)]


def test_a_node_that_can_start_no_trainer_does_not_use_up_the_attempts_of_its_jobs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = bench.submit(DIGITS | {"publish": None})

    def refusing(_order: Any) -> Trainer:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(supervisor, "START_PAUSES_SECONDS", (0.0, 0.0))
    with monkeypatch.context() as patch:
        patch.setattr(forkserver, "start", refusing)
        for _ in range(4):
            with pytest.raises(OSError, match="Too many open files"):
                bench.run()
    waiting = bench.row(job_id)
    rested = bench.node.starting.left_seconds
    bench.run()

    assert (waiting.state, waiting.attempts_without_progress) == ("queued", 0)
    assert [event.level for event in bench.events(job_id) if "Too many open files" in event.message] == ["warning"] * 4
    assert bench.row(job_id).state == "succeeded"
    assert rested > 0 == bench.node.starting.left_seconds


def test_a_trainer_that_starts_at_the_third_try_is_no_event(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = bench.submit(DIGITS | {"publish": None})
    start, refused = forkserver.start, []

    def twice_refusing(order: Any) -> Trainer:
        if len(refused) < 2:
            refused.append(order)
            raise OSError(24, "Too many open files")
        return start(order)

    monkeypatch.setattr(forkserver, "start", twice_refusing)
    bench.run()

    job = bench.row(job_id)
    assert (job.state, job.attempt, len(refused)) == ("succeeded", 1, 2)
    assert not any("Too many open files" in event.message for event in bench.events(job_id))


def test_a_trainer_that_dies_before_its_first_word_makes_the_node_rest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = bench.submit(DIGITS | {"publish": None})
    start = forkserver.start

    def stillborn(order: Any) -> Trainer:
        trainer = start(order)
        os.kill(trainer.pid, signal.SIGKILL)
        return trainer

    monkeypatch.setattr(forkserver, "start", stillborn)
    bench.run()

    assert bench.row(job_id).attempts_without_progress == 1
    assert bench.node.starting.left_seconds > 0


def test_a_trainer_that_stops_in_the_middle_of_a_message_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkserver, "MESSAGE_SECONDS", 1)
    ours, theirs = Pipe()
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    trainer = Trainer(cast(ForkServerProcess, process), ours)
    with open(theirs.fileno(), "wb", buffering=0, closefd=False) as end:
        end.write(struct.pack("!i", 1000) + b"half")

    heard: list[str] = []

    def listen() -> None:
        try:
            trainer.receive(5)
        except TrainerGone:
            heard.append("gone")

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    thread.join(5)
    ours.close()
    theirs.close()

    assert heard == ["gone"]
    assert process.wait(5) == -signal.SIGKILL


class Broken(Database):
    """Fails once as no database should."""

    failures = 0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        if self.failures == 0:
            self.failures += 1
            raise RuntimeError("malformed")
        with super().write() as connection:
            yield connection


def test_a_reaper_outlives_an_error_that_nobody_thought_of(bench: Bench) -> None:
    database = Broken(bench.node.settings.resolved_database_url)
    node = dataclasses.replace(bench.node, database=database)
    job_id = bench.submit(DIGITS)
    with bench.node.database.write() as connection:
        connection.execute(reaper.leases.claim_next("node_2:0", 0.0, cuda=False)).one()
    thread = threading.Thread(target=reaper.run, args=(node,), daemon=True)

    thread.start()
    wait_until(lambda: bench.row(job_id).state == "queued", 5)
    node.draining.set()
    thread.join(5)
    database.close()

    assert not thread.is_alive()


def test_files_that_a_lost_attempt_left_behind_are_swept_and_named_ones_stay(bench: Bench) -> None:
    job_id = bench.submit(DIGITS | {"publish": None})
    thread = bench.run_aside()
    bench.wait_for_checkpoint(job_id, 50)
    trainer_of(job_id).kill()
    bench.finish(thread)
    folder = f"checkpoints/{job_id}"
    for stray in ("000000000009-1.safetensors", ".000000000060-1.safetensors.0a0b0c0d.tmp"):
        bench.node.store.put(f"{folder}/{stray}", b"half")

    bench.run()

    assert bench.row(job_id).state == "succeeded"
    assert bench.node.store.names(folder) == sorted(row.name for row in bench.checkpoints(job_id))
