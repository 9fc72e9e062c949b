"""Many lives and few threads: whatever sleeps until a moment of its own costs nothing while it sleeps."""

import heapq
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

Life = Iterator[float]
"""Does something when it is gone on with, and yields the moment (seconds since 1970) at which it wants to go on."""


class Schedule:
    """Goes on with each life when it is due: the earliest first, as many at once as there are threads. Nobody but
    the caller of `run` waits for a moment, so that a thousand lives wake one thread and not a thousand."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Life]] = []
        self._numbers = itertools.count()  # lives can not be compared
        self._changed = threading.Condition()
        self._failure: BaseException | None = None

    def add(self, life: Life, moment: float) -> None:
        with self._changed:
            heapq.heappush(self._due, (moment, next(self._numbers), life))
            if self._due[0][2] is life:
                self._changed.notify()

    def run(self, threads: int, until: float) -> None:
        """Blocks until that moment and until whoever is at work then has done. What a life raises is raised here."""
        pool = ThreadPoolExecutor(threads)
        while (life := self._next(until)) is not None:
            pool.submit(self._go_on, life)
        pool.shutdown(cancel_futures=True)
        if self._failure is not None:
            raise self._failure

    def _next(self, until: float) -> Life | None:
        with self._changed:
            while (now := time.time()) < until and self._failure is None:
                if self._due and self._due[0][0] <= now:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(min(until, self._due[0][0] if self._due else until) - now)
        return None

    def _go_on(self, life: Life) -> None:
        try:
            moment = next(life, None)
        except BaseException as failure:  # else it would lie unread in a future
            with self._changed:
                self._failure = failure
                self._changed.notify()
            return
        if moment is not None:
            self.add(life, moment)
