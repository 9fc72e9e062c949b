"""What runs next, and for whom: batches of what waits, bounds, deadlines, turns."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from threading import Event
from typing import Any

import numpy as np
import pytest

from api.inference.batching import Batcher
from api.inference.lanes import Lane
from core.errors import DeadlinePassed, InputInvalid, Overloaded, Unavailable

Rows = np.ndarray[Any, np.dtype[np.float32]]


class Doubling:
    """Answers twice its rows. Slow ones wait until they are let go, in a thread."""

    padded = False
    rows_a_run = 64

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go = Event()
        self.started = Event()
        self.go.set()

    def run(self, chunk: Rows) -> list[Rows]:
        self.started.set()
        assert self.go.wait(10)
        self.batches.append(len(chunk))
        return [chunk * 2]


def lane_of(model: Any, name: str = "m", seconds: float = 0.0) -> Lane:
    return Lane(model, (name, 1), name, None, "w", seconds, seconds)


def rows(count: int, value: float = 1.0) -> Rows:
    return np.full((count, 2), value, np.float32)


def later(seconds: float = 30.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def run(test: Callable[[Batcher], Coroutine[Any, Any, None]], queue_rows: int = 1000, threads: int = 1) -> None:
    async def whole() -> None:
        batcher = Batcher(threads, queue_rows)
        try:
            await test(batcher)
        finally:
            batcher.close()

    asyncio.run(whole())


async def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_what_waits_goes_together_and_everyone_gets_their_own_rows() -> None:
    model = Doubling()

    async def test(batcher: Batcher) -> None:
        lane = lane_of(model)
        answers = await asyncio.gather(*(batcher.submit(lane, rows(2, value), later()) for value in range(20)))
        for value, (answer,) in enumerate(answers):
            assert answer.tolist() == [[2 * value] * 2] * 2
        assert lane.tally.succeeded == 20

    run(test)
    assert model.batches == [40]


def test_a_lone_request_waits_for_no_company() -> None:
    model = Doubling()

    async def test(batcher: Batcher) -> None:
        lane = lane_of(model)
        began = time.perf_counter()
        for _ in range(100):
            await batcher.submit(lane, rows(1), later())
        assert time.perf_counter() - began < 2.0

    run(test)
    assert model.batches == [1] * 100


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_more_rows_than_a_batch_go_in_parts_and_others_go_between(seconds: float) -> None:
    model = Doubling()

    async def test(batcher: Batcher) -> None:
        lane = lane_of(model, seconds=seconds)
        large = batcher.submit(lane, np.arange(2000, dtype=np.float32).reshape(1000, 2), later())
        small = batcher.submit(lane, rows(1), later())
        await small
        assert not large.done()
        (answer,) = await large
        assert answer.reshape(-1).tolist() == [2.0 * value for value in range(2000)]

    run(test, queue_rows=5000)
    assert max(model.batches) <= Doubling.rows_a_run


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again() -> None:
    model = Doubling()
    model.go.clear()

    async def test(batcher: Batcher) -> None:
        lane = lane_of(model, seconds=0.1)
        first = batcher.submit(lane, rows(1), later())
        await until(model.started.is_set)
        waiting = [batcher.submit(lane, rows(2), later()) for _ in range(5)]
        with pytest.raises(Overloaded) as refused:
            batcher.submit(lane, rows(1), later())
        assert refused.value.retry_after_seconds == 1
        model.go.set()
        await asyncio.gather(first, *waiting)
        await batcher.submit(lane, rows(1), later())
        assert lane.tally.rejected == 1

    run(test, queue_rows=10)


def test_who_waits_too_long_is_told_on_time_and_its_rows_never_run() -> None:
    model = Doubling()
    model.go.clear()

    async def test(batcher: Batcher) -> None:
        lane = lane_of(model, seconds=0.1)
        first = batcher.submit(lane, rows(1), later())
        await until(model.started.is_set)
        began = time.perf_counter()
        late = batcher.submit(lane, rows(5), later(0.02))
        with pytest.raises(DeadlinePassed):
            await late
        assert time.perf_counter() - began < 5.0
        model.go.set()
        await first
        await batcher.submit(lane, rows(1), later())

    run(test)
    assert model.batches == [1, 1]


def test_rows_of_a_client_that_is_gone_never_run() -> None:
    model = Doubling()
    model.go.clear()

    async def test(batcher: Batcher) -> None:
        lane = lane_of(model, seconds=0.1)
        hung_up = asyncio.Event()
        first = batcher.submit(lane, rows(1), later())
        await until(model.started.is_set)
        gone = batcher.submit(lane, rows(7), later(), gone=hung_up.wait)
        hung_up.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        model.go.set()
        await first
        await batcher.submit(lane, rows(2), later())
        assert lane.tally.cancelled == 1

    run(test)
    assert model.batches == [1, 2]


def test_a_busy_model_does_not_keep_another_from_its_turn() -> None:
    busy, other = Doubling(), Doubling()

    async def test(batcher: Batcher) -> None:
        lane, quiet = lane_of(busy, "busy", 1.0), lane_of(other, "quiet", 1.0)
        many = [batcher.submit(lane, rows(Doubling.rows_a_run), later()) for _ in range(50)]
        await batcher.submit(quiet, rows(1), later())
        assert len(busy.batches) <= 3
        await asyncio.gather(*many)

    run(test, queue_rows=100_000)


def test_the_more_urgent_goes_first() -> None:
    model = Doubling()
    model.go.clear()
    order = []

    async def test(batcher: Batcher) -> None:
        lane = lane_of(model, seconds=0.1)
        first = batcher.submit(lane, rows(1), later())
        await until(model.started.is_set)
        for name, priority in (("low", 900), ("usual", 500), ("urgent", 1)):
            future = batcher.submit(lane, rows(Doubling.rows_a_run), later(), priority)
            future.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
        model.go.set()
        await first
        await until(lambda: len(order) == 3)

    run(test)
    assert order == ["urgent", "usual", "low"]


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_who_can_not_be_answered_does_not_spoil_it_for_others(seconds: float) -> None:
    class Odd(Doubling):
        def run(self, chunk: Rows) -> list[Rows]:
            (answers,) = super().run(chunk)
            answers[chunk[:, 0] == 13.0] = np.nan
            return [answers]

    async def test(batcher: Batcher) -> None:
        lane = lane_of(Odd(), seconds=seconds)
        infinite = rows(2)
        infinite[1, 1] = np.inf
        futures = [batcher.submit(lane, given, later()) for given in (rows(1), infinite, rows(1, 13.0), rows(1, 3.0))]
        answers = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(answers[1], InputInvalid)
        assert isinstance(answers[2], InputInvalid)
        assert [answers[index][0].tolist() for index in (0, 3)] == [[[2.0, 2.0]], [[6.0, 6.0]]]  # type: ignore[index]

    run(test)


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_a_session_that_fails_fails_its_batch_only(seconds: float) -> None:
    class Broken(Doubling):
        def run(self, chunk: Rows) -> list[Rows]:
            if len(chunk) == 3:
                raise RuntimeError("no memory")
            return super().run(chunk)

    async def test(batcher: Batcher) -> None:
        lane = lane_of(Broken(), seconds=seconds)
        with pytest.raises(Unavailable, match="no memory"):
            await batcher.submit(lane, rows(3), later())
        await batcher.submit(lane, rows(1), later())

    run(test)
