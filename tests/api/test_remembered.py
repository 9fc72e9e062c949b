import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from api.keycache import Caller, KeyCache
from api.remembered import Remembered
from core.errors import NotFound, Unavailable

CALLER = Caller("ten_1", "key_1", frozenset(("jobs:read",)))


class Source:
    """Answers with a number that grows, or fails."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.asked


def on_a_loop(test: Callable[[Source], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test(Source()))  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


async def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


@on_a_loop
async def test_many_who_ask_at_once_wait_for_one_look_up(source: Source) -> None:
    known: Remembered[str, int] = Remembered(60.0, 60.0)

    answers = await asyncio.gather(*(known.fetch("a", source) for _ in range(50)))

    assert (set(answers), source.asked) == ({1}, 1)
    assert known.get("a", source) == 1


@on_a_loop
async def test_an_aging_answer_is_given_while_it_is_asked_again_beside(source: Source) -> None:
    known: Remembered[str, int] = Remembered(0.0, 60.0)
    await known.fetch("a", source)

    assert known.get("a", source) == 1

    await until(lambda: known.get("a", source) != 1)


@on_a_loop
async def test_an_answer_beyond_its_bound_is_never_given(source: Source) -> None:
    known: Remembered[str, int] = Remembered(0.0, 0.0)
    await known.fetch("a", source)

    assert known.get("a", source) is None
    assert await known.fetch("a", source) == 2


@on_a_loop
async def test_what_is_forgotten_is_asked_again_even_when_a_look_up_was_under_way(source: Source) -> None:
    known: Remembered[str, int] = Remembered(60.0, 60.0)
    early = asyncio.ensure_future(known.fetch("a", source))
    await until(lambda: source.asked == 1)

    known.forget(lambda _: True)
    await early

    assert known.get("a", source) is None
    assert await known.fetch("a", source) == 2


@on_a_loop
async def test_what_is_gone_is_forgotten_and_an_absent_database_is_not_held_against_it(source: Source) -> None:
    known: Remembered[str, int] = Remembered(0.0, 60.0)
    await known.fetch("a", source)
    source.error = Unavailable("away")

    assert known.get("a", source) == 1
    await until(lambda: source.asked == 2)
    await asyncio.sleep(0.01)
    assert known.get("a", source) == 1
    source.error = NotFound("gone")
    await until(lambda: known.get("a", source) is None)


@on_a_loop
async def test_what_is_held_outlives_its_bound_until_the_look_up_ends(source: Source) -> None:
    known: Remembered[str, int] = Remembered(0.0, 0.0)
    release = asyncio.Event()
    await known.fetch("a", source)

    async def slow() -> int:
        known.hold("a")
        await release.wait()
        return 7

    waiting = asyncio.ensure_future(known.fetch("a", slow))
    await until(lambda: known.get("a", slow) == 1)
    release.set()
    assert await waiting == 7


@on_a_loop
async def test_it_never_grows_beyond_its_bound(source: Source) -> None:
    known: Remembered[int, int] = Remembered(60.0, 60.0, entries=10)
    for number in range(50):
        await known.fetch(number, source)

    assert known.get(0, source) is None
    assert known.get(49, source) == 50


def test_a_forgotten_key_is_gone_and_others_stay() -> None:
    other = Caller("ten_1", "key_2", frozenset())
    callers = {"ek_a_b": CALLER, "ek_c_d": other}

    async def run() -> tuple[Caller | None, Caller | None]:
        cache = KeyCache(callers.__getitem__)
        for text in callers:
            await cache.find(text)
        cache.forget("key_1")
        return cache.get("ek_a_b"), cache.get("ek_c_d")

    assert asyncio.run(run()) == (None, other)


@pytest.mark.parametrize("text", ["ek_a_b", "ek_\ud800"])
def test_any_text_can_be_asked_for(text: str) -> None:
    async def run() -> Caller:
        return await KeyCache(lambda _: CALLER).find(text)

    assert asyncio.run(run()) == CALLER
