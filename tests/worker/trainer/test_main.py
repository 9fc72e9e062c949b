"""The trainer as a process: what it loads, what it is told, and when it ends."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.worker.trainer.helpers import digits_spec, order_for
from worker.messages import Order
from worker.trainer.main import decode_order

ROOT = Path(__file__).parents[3]
ENDLESS = digits_spec(training={"steps": 10_000_000, "evaluate_every": 10_000_000, "checkpoint_every": 10_000_000})


class Supervisor:
    """A process that starts trainers; see `process`."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker.trainer.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def write(self, line: str) -> None:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def start(self, order: Order) -> psutil.Process:
        self.write(f"start {as_json(order)}")
        return psutil.Process(int(self.process.stdout.readline()))

    def lines_until(self, beginning: str) -> list[str]:
        lines: list[str] = []
        for line in self.process.stdout:
            lines.append(line.strip())
            if line.startswith(beginning):
                return lines
        raise AssertionError(f"no line begins with {beginning!r}: {lines}")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    supervisor.close()


def as_json(order: Order) -> str:
    return json.dumps(dataclasses.asdict(order))


def test_an_order_survives_the_pipe(tmp_path: Path):
    order = order_for(tmp_path, digits_spec())

    assert decode_order(as_json(order).encode()) == order


def test_a_trainer_process_has_all_it_needs_and_nothing_of_the_service(supervisor: Supervisor):
    supervisor.write("report")

    facts = json.loads(supervisor.process.stdout.readline())

    assert facts == {"unwanted": [], "missing": [], "cuda": False, "threads": 1}


def test_a_job_runs_to_its_result_in_a_process_of_its_own(supervisor: Supervisor, tmp_path: Path):
    supervisor.start(order_for(tmp_path, digits_spec()))

    lines = supervisor.lines_until("exit")

    assert lines[0] == "Started 0"
    assert lines[-2:] == ["Finished", "exit 0"]


def test_a_command_over_the_pipe_is_obeyed(supervisor: Supervisor, tmp_path: Path):
    trainer = supervisor.start(order_for(tmp_path, ENDLESS))
    supervisor.lines_until("Points")
    assert os.getpgid(trainer.pid) == trainer.pid
    assert trainer.cmdline()[0].strip() == "evenkeel: trainer job_test"

    supervisor.write("pause")

    stopped = supervisor.lines_until("exit")[-2]
    assert stopped.startswith("Stopped") and int(stopped.split()[1]) > 0


def test_a_trainer_ends_when_its_supervisor_is_killed(tmp_path: Path):
    supervisor = Supervisor()
    trainer = supervisor.start(order_for(tmp_path, ENDLESS))
    supervisor.lines_until("Points")

    supervisor.process.send_signal(signal.SIGKILL)
    supervisor.close()

    assert gone_within(trainer, seconds=2.0)


def gone_within(process: psutil.Process, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.005)
                continue
        return True
    return False
