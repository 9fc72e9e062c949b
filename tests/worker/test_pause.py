"""The rest of a node that can not begin jobs."""

import threading
import time

import pytest

from worker import pause
from worker.pause import Pause


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [1000.0]
    monkeypatch.setattr(pause.time, "monotonic", lambda: now[0])
    return now


def test_each_failure_doubles_the_pause_up_to_a_minute(clock: list[float]) -> None:
    node = Pause()
    seen = []

    for _ in range(8):
        node.failed()
        seen.append(node.left_seconds)
        clock[0] += node.left_seconds

    assert seen == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_failures_of_several_slots_in_one_pause_count_once(clock: list[float]) -> None:
    node = Pause()

    for _ in range(4):
        node.failed()

    assert node.left_seconds == 1.0


def test_what_works_ends_the_pause_and_the_next_one_is_short_again(clock: list[float]) -> None:
    node = Pause()
    for _ in range(3):
        node.failed()
        clock[0] += node.left_seconds

    node.worked()

    assert node.left_seconds == 0.0
    node.failed()
    assert node.left_seconds == 1.0


def test_a_worker_that_is_told_to_end_does_not_wait_for_the_pause() -> None:
    node, draining = Pause(), threading.Event()
    for _ in range(2):
        node.failed()
    draining.set()
    began = time.monotonic()

    node.wait(draining)

    assert node.left_seconds > 0
    assert time.monotonic() - began < 0.5
