"""What the health check of a worker goes by."""

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from core.settings import Settings
from tests.worker.bench import Bench, wait_until
from worker import tasks, vitals
from worker.local import Slots
from worker.tasks import Listener
from worker.vitals import Vitals, problem

AS_ROOT = pytest.mark.filterwarnings("ignore:You're running the worker with superuser privileges")
NOBODY = "redis://127.0.0.1:9/0"


@pytest.fixture
def settings(tmp_path: Path, sqlite_url: str) -> Settings:
    return Settings(home=tmp_path, database_url=sqlite_url, broker_url=NOBODY, poll_seconds=0.05)


def test_a_worker_that_never_began_is_not_healthy(settings: Settings) -> None:
    assert "no worker has given a sign of life" in str(problem(settings))


def test_looking_alone_is_not_enough_with_a_broker(settings: Settings) -> None:
    signs = Vitals(settings.home)

    signs.looked()
    deaf = problem(settings)
    signs.heard()

    assert "has not heard for work" in str(deaf)
    assert problem(settings) is None
    assert problem(settings.model_copy(update={"broker_url": None})) is None


@pytest.mark.parametrize("name", ["LOOK_SECONDS", "HEAR_SECONDS"])
def test_signs_that_are_too_old_prove_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    signs = Vitals(settings.home)
    signs.looked()
    signs.heard()

    monkeypatch.setattr(vitals, name, -1.0)

    assert problem(settings) is not None


def test_signs_of_another_life_of_the_machine_prove_nothing(settings: Settings) -> None:
    vitals.vitals_path(settings.home).write_text('{"looked": 1e12, "heard": 1e12}')

    assert problem(settings) is not None


def test_slots_that_listen_give_a_sign_and_their_end_is_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = bench.node.settings.model_copy(update={"broker_url": None})
    node = dataclasses.replace(bench.node, settings=settings)
    thread = threading.Thread(target=Slots(node, Vitals(node.settings.home)).work, daemon=True)

    thread.start()
    wait_until(lambda: problem(settings) is None)
    node.drain()
    thread.join(15)
    monkeypatch.setattr(vitals, "LOOK_SECONDS", 0.0)

    wait_until(lambda: problem(settings) is not None)


@pytest.fixture
def listener(bench: Bench, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Listener]:
    """One whose pulses are sent, and lost on the way, or not taken at all."""

    def build(taken: bool) -> Listener:
        monkeypatch.setattr(tasks, "PULSE_SECONDS", 0.02)
        monkeypatch.setattr(tasks, "send", lambda *_: taken)
        listener = Listener(dataclasses.replace(bench.node, settings=settings), NOBODY, Vitals(settings.home))
        monkeypatch.setattr(listener._worker, "stop", lambda: None)
        return listener

    return build


@AS_ROOT
def test_pulses_that_are_taken_and_do_not_come_back_end_the_worker_and_are_no_sign_of_life(
    listener: Callable[[bool], Listener], settings: Settings
) -> None:
    deaf = listener(True)

    deaf._pulse()

    assert deaf.deaf
    assert "no worker" in str(problem(settings))


@AS_ROOT
def test_a_broker_that_takes_no_pulse_is_no_reason_to_start_over(
    listener: Callable[[bool], Listener], bench: Bench, settings: Settings
) -> None:
    away = listener(False)
    thread = threading.Thread(target=away._pulse, daemon=True)

    thread.start()
    wait_until(lambda: vitals.vitals_path(settings.home).exists())
    bench.node.draining.set()
    thread.join(5)

    assert not away.deaf
    assert "has not looked" in str(problem(settings))


@AS_ROOT
def test_a_worker_that_hears_its_pulses_long_before_the_next_is_due_goes_on(
    listener: Callable[[bool], Listener], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    well = listener(True)
    sent: list[str] = []

    def send(*arguments: str) -> bool:
        well._heard()
        sent.append(arguments[1])
        if len(sent) == 20:
            bench.node.draining.set()
        return True

    monkeypatch.setattr(tasks, "send", send)
    well._pulse()

    assert len(sent) == 20
    assert not well.deaf
