"""What a slow look-up answered a moment ago: known at once, asked again beside, never older than a bound."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from math import inf
from typing import Generic, TypeVar

from core.errors import EvenkeelError, Unavailable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
LookUp = Callable[[], Awaitable[V]]


class Remembered(Generic[K, V]):
    """Answers of look-ups, by key.

    One that is older than `again_seconds` is still given, while one look-up for all goes on beside; one that is
    older than `seconds` is never given. Nothing happens for a key that nobody asks for: there is no timer.
    Belongs to the event loop; only `forget` may be called from other threads.
    """

    def __init__(self, again_seconds: float, seconds: float, entries: int = 4096) -> None:
        self._again_seconds = again_seconds
        self._seconds = seconds
        self._maximum = entries
        self._entries: dict[K, tuple[float, V]] = {}
        self._asking: dict[K, asyncio.Task[V]] = {}
        self._forgotten = 0

    def get(self, key: K, look_up: LookUp[V]) -> V | None:
        """The answer if it is young enough, at once."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        age = time.monotonic() - entry[0]
        if age >= self._seconds:
            return None
        if age >= self._again_seconds and key not in self._asking:
            self._ask(key, look_up)
        return entry[1]

    async def fetch(self, key: K, look_up: LookUp[V]) -> V:
        """The answer, waited for: all who ask at the same time wait for one look-up. Raises what it raises."""
        found = self.get(key, look_up)
        if found is not None:
            return found
        return await asyncio.shield(self._asking.get(key) or self._ask(key, look_up))

    def forget(self, chosen: Callable[[V], bool]) -> None:
        """Answers that a change in this process made wrong; those of look-ups under way are not kept either."""
        self._forgotten += 1
        self._asking = {}
        for key, (_, value) in list(self._entries.items()):
            if chosen(value):
                self._entries.pop(key, None)

    def hold(self, key: K) -> None:
        """Said by a look-up that knows of a change and has work to do first: the old answer stands until it ends."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries[key] = (inf, entry[1])

    def _ask(self, key: K, look_up: LookUp[V]) -> "asyncio.Task[V]":
        task = asyncio.get_running_loop().create_task(self._asked(key, look_up, self._forgotten))
        self._asking[key] = task
        task.add_done_callback(lambda done: self._answered(key, done))
        return task

    async def _asked(self, key: K, look_up: LookUp[V], forgotten: int) -> V:
        began = time.monotonic()
        try:
            value = await look_up()
        except EvenkeelError as error:
            known = self._entries.get(key)
            if known is not None and not (isinstance(error, Unavailable) and known[0] < inf):
                del self._entries[key]  # else what is known stays known until its time is over
            raise
        if forgotten == self._forgotten:
            self._entries.pop(key, None)  # to stand last, where the youngest stand
            self._entries[key] = (began, value)
            if len(self._entries) > self._maximum:
                self._entries.pop(next(iter(self._entries)))
        return value

    def _answered(self, key: K, task: "asyncio.Task[V]") -> None:
        if self._asking.get(key) is task:
            del self._asking[key]
        with suppress(asyncio.CancelledError):
            task.exception()  # looked at: whoever waits is told, and nobody has to wait
