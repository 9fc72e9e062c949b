"""A version in memory with those who wait for it, and what it has done so far."""

import asyncio
import time
from collections import Counter
from heapq import heappop, heapreplace
from itertools import count
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from api.inference.drift import Drift
from api.inference.layers import LayerDrift
from core.errors import DeadlinePassed, EvenkeelError

Array = NDArray[np.float32]


class Model(Protocol):
    @property
    def rows_a_run(self) -> int:
        """The most rows a run, for which one row's bits are proved."""

    def run(self, chunk: Array) -> list[Array]: ...


class Pending:
    """Rows that wait for their answers. `future` has one array an output."""

    __slots__ = ("answered", "deadline", "future", "parts", "rows", "since", "taken")

    def __init__(self, rows: Array, deadline: float, future: "asyncio.Future[list[Array]]") -> None:
        self.rows = rows
        self.deadline = deadline
        self.future = future
        self.since = time.perf_counter_ns()
        self.taken = self.answered = 0
        self.parts: dict[int, list[Array]] = {}

    def answer(self, start: int, outputs: list[Array], size: int) -> None:
        if self.future.done():
            return
        if size == len(self.rows):
            self.future.set_result(outputs)
            return
        self.parts[start] = outputs
        self.answered += size
        if self.answered == len(self.rows):
            in_order = [self.parts[place] for place in sorted(self.parts)]
            self.future.set_result([np.concatenate(output) for output in zip(*in_order, strict=True)])

    def fail(self, error: EvenkeelError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


Part = tuple[Pending, int, int]
"""Rows of one pending request in a batch: (whose, first row, number)."""


class Tally:
    """What a lane has done, in nanoseconds and counts; read by the statistics extension and by Prometheus."""

    def __init__(self) -> None:
        self.succeeded = self.failed = self.rejected = self.cancelled = self.expired = 0
        self.rows = self.batches = 0
        self.total_ns = self.failed_ns = self.queue_ns = 0
        self.input_ns = self.compute_ns = self.output_ns = 0
        self.requests = self.parse_ns = self.reply_ns = 0
        self.sizes: Counter[int] = Counter()
        self.size_ns: Counter[int] = Counter()
        self.last_ms = 0


class Lane:
    """A version in memory with those who wait for it."""

    def __init__(
        self,
        model: Any,
        key: tuple[str, int],
        name: str,
        statistics_sha256: str | None,
        weights_sha256: str,
        alone_seconds: float,
        full_seconds: float,
    ) -> None:
        self.model = model
        self.rows_a_run: int = model.rows_a_run
        self.key = key
        self.name = name
        self.version = key[1]
        self.statistics_sha256 = statistics_sha256
        self.weights_sha256 = weights_sha256
        self.provenance = {"statistics_sha256": statistics_sha256 or "", "weights_sha256": weights_sha256}
        self.headers = [
            (b"evenkeel-model-version", b"%d" % key[1]),
            (b"evenkeel-statistics-sha256", (statistics_sha256 or "none").encode()),
            (b"evenkeel-batch-invariance", b"padded" if model.padded else b"exact"),
        ]
        self.head = b"".join(b"%b: %b\r\n" % header for header in self.headers)
        self.plans: dict[bytes, Any] = {}  # headers of requests that were understood before
        self.heads: dict[Any, bytes] = {}  # and of their answers
        self.drift: Drift | None = None
        self.layers: LayerDrift | None = None
        self.alive = True
        self.waiting: list[tuple[int, int, Pending]] = []
        self.rows_waiting = 0
        self.has_turn = False
        self.tally = Tally()
        self._alone: float = alone_seconds
        self._more: float = max(0.0, full_seconds - alone_seconds) / max(1, self.rows_a_run - 1)

    @property
    def bytes(self) -> int:
        """Of the model files in memory."""
        return int(self.model.bytes) + (self.layers.bytes if self.layers else 0)

    def seconds(self, rows: int) -> float:
        """What a batch of so many rows takes, from what was measured at warm-up."""
        return self._alone + self._more * (min(rows, self.rows_a_run) - 1)

    def take(self, now: float, order: "count[int]") -> list[Part]:
        """The next batch: first come first, without those who are gone or too late."""
        parts: list[Part] = []
        room = self.rows_a_run
        while self.waiting and room:
            priority, _, pending = self.waiting[0]
            left = len(pending.rows) - pending.taken
            if pending.future.done() or pending.deadline < now:
                heappop(self.waiting)
                self.rows_waiting -= left
                self._drop(pending)
                continue
            size = min(left, self.rows_a_run)
            if size > room:
                break
            parts.append((pending, pending.taken, size))
            pending.taken += size
            room -= size
            self.rows_waiting -= size
            if size == left:
                heappop(self.waiting)
            else:  # more than a batch: the others go between its parts
                heapreplace(self.waiting, (priority, next(order), pending))
        return parts

    def _drop(self, pending: Pending) -> None:
        if pending.future.cancelled():
            self.tally.cancelled += 1
        elif not pending.future.done():
            self.tally.expired += 1
            pending.fail(too_late())


def too_late() -> DeadlinePassed:
    return DeadlinePassed("the time that the request gave is over: give it more, or send fewer rows")
