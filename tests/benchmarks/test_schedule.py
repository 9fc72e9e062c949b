"""Lives on a schedule: each is gone on with when it is due, and none holds up another."""

import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks._schedule import Schedule


def counting(name: str, done: list[str], *moments: float) -> Iterator[float]:
    for moment in moments:
        done.append(name)
        yield moment
    done.append(name)


def test_what_is_due_first_is_done_first_and_lives_that_have_ended_are_left() -> None:
    schedule, done, now = Schedule(), [], time.time()
    schedule.add(counting("late", done), now + 0.02)
    schedule.add(counting("twice", done, now + 0.01), now)

    schedule.run(threads=1, until=now + 0.05)

    assert done == ["twice", "twice", "late"]


def test_what_takes_long_holds_up_nobody_while_a_thread_is_free() -> None:
    schedule, other_was_there, now = Schedule(), threading.Event(), time.time()

    def waiting() -> Iterator[float]:
        assert other_was_there.wait(10)
        yield now + 100

    def other() -> Iterator[float]:
        other_was_there.set()
        yield now + 100

    schedule.add(waiting(), now)
    schedule.add(other(), now + 0.01)

    schedule.run(threads=2, until=now + 0.05)

    assert other_was_there.is_set()


def test_what_is_due_after_the_end_is_not_done() -> None:
    schedule, done, now = Schedule(), [], time.time()
    schedule.add(counting("once", done, now + 100), now)

    schedule.run(threads=1, until=now + 0.05)

    assert done == ["once"]


def test_a_life_that_raises_ends_the_run_with_its_error() -> None:
    schedule, now = Schedule(), time.time()

    def failing() -> Iterator[float]:
        raise ValueError("of this life")
        yield 0.0

    schedule.add(failing(), now)

    with pytest.raises(ValueError, match="of this life"):
        schedule.run(threads=1, until=now + 100)
