"""Who waits for a model, and what runs next.

What waits while a batch runs goes next; there is no timer that waits for company. Lanes take turns, so that a
busy model does not keep the others from theirs. All of it belongs to the event loop, except a batch that runs.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from heapq import heappush
from itertools import count
from typing import Any

import numpy as np

from api.inference.lanes import Array, Lane, Model, Part, Pending, too_late
from core.errors import FieldProblem, InputInvalid, Overloaded, Unavailable

AT_ONCE_SECONDS = 0.001
"""A batch that takes no longer runs on the event loop itself: to hand it to a thread would cost more than it."""
DEFAULT_PRIORITY = 500
NOT_FINITE_ANSWER = "the model's answer is not a number: the values are far outside of what it was trained on"


class NotFinite(InputInvalid):
    """Rows that were not looked at before hold such a number; whoever read them says where."""


Gone = Callable[[], Awaitable[Any]]
"""Ends when the client is gone."""


class Batcher:
    """Bounded: a lane on which `queue_rows` wait refuses more; one request alone may be larger."""

    def __init__(self, threads: int, queue_rows: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        self._idle = threads
        self._queue_rows = queue_rows
        self._turns: deque[Lane] = deque()
        self._fresh: list[tuple[Pending, Gone | None]] = []
        self._order = count()
        self._due = False

    def close(self) -> None:
        """Whoever still waits is told that the service ends."""
        for lane in self._turns:
            for _, _, pending in lane.waiting:
                pending.fail(Unavailable("the service is stopping: ask again"))
        self._turns.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def admit(self, lane: Lane, rows: int) -> None:
        """Raises Overloaded where so many rows more may not wait."""
        if lane.rows_waiting + rows > self._queue_rows:
            lane.tally.rejected += 1
            seconds = 1 + int(lane.seconds(lane.rows_a_run) * lane.rows_waiting / lane.rows_a_run)
            raise Overloaded(
                f"{lane.rows_waiting} rows already wait for model {lane.name}, and {self._queue_rows} may: "
                f"try again in {seconds} s, or send fewer at once",
                retry_after_seconds=seconds,
            )

    def submit(
        self, lane: Lane, rows: Array, deadline: float, priority: int = DEFAULT_PRIORITY, gone: Gone | None = None
    ) -> "asyncio.Future[list[Array]]":
        """The outputs for `rows`, at least one, in a while. `deadline`: by the loop's clock.

        The future raises DeadlinePassed, InputInvalid for rows whose answer is no number, or Unavailable; it is
        cancelled when `gone` ends first.
        """
        if lane.rows_waiting:
            self.admit(lane, len(rows))
        loop = asyncio.get_running_loop()
        pending = Pending(rows, deadline, loop.create_future())
        heappush(lane.waiting, (priority, next(self._order), pending))
        lane.rows_waiting += len(rows)
        self._fresh.append((pending, gone))
        if not lane.has_turn:
            lane.has_turn = True
            self._turns.append(lane)
        if not self._due:
            self._call(loop)
        return pending.future

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._due:
            self._due = True
            loop.call_soon(self._tick)

    def _tick(self) -> None:
        """One batch for each lane in turn; those on the loop itself only as long as it can be held up."""
        self._due = False
        loop = asyncio.get_running_loop()
        now, spent = loop.time(), 0.0
        blocked: list[Lane] = []
        for _ in range(len(self._turns)):
            lane = self._turns.popleft()
            expected = lane.seconds(lane.rows_waiting)
            if expected > AT_ONCE_SECONDS and not self._idle:
                blocked.append(lane)
                continue
            parts = lane.take(now, self._order)
            lane.has_turn = bool(lane.waiting)
            if lane.has_turn:
                self._turns.append(lane)
            if not parts:
                continue
            if expected <= AT_ONCE_SECONDS:
                _run_at_once(lane, parts)
                spent += expected
            else:
                self._run_beside(loop, lane, parts)
            if spent > AT_ONCE_SECONDS:
                break
        self._turns.extendleft(reversed(blocked))  # whose turn it was, it still is
        if any(self._idle or lane.seconds(lane.rows_waiting) <= AT_ONCE_SECONDS for lane in self._turns):
            self._call(loop)
        self._watch_fresh(loop)

    def _run_beside(self, loop: asyncio.AbstractEventLoop, lane: Lane, parts: list[Part]) -> None:
        chunk, began = _assembled(lane, parts)
        if not parts:
            return
        self._idle -= 1
        running = loop.run_in_executor(self._pool, _timed, lane.model, chunk)

        def ended(done: "asyncio.Future[tuple[list[Array], int]]") -> None:
            self._idle += 1
            self._call(loop)
            if done.cancelled():
                return
            error = done.exception()
            if error is not None:
                _fail(lane, parts, error)
            else:
                outputs, seconds_ns = done.result()
                _hand_out(lane, parts, outputs, began, seconds_ns)

        running.add_done_callback(ended)

    def _watch_fresh(self, loop: asyncio.AbstractEventLoop) -> None:
        """Who is not answered yet will wait: only then is it worth a timer and a look at the connection."""
        for pending, gone in self._fresh:
            if not pending.future.done():
                _watch(loop, pending, gone)
        self._fresh.clear()


def _watch(loop: asyncio.AbstractEventLoop, pending: Pending, gone: Gone | None) -> None:
    timer = loop.call_at(pending.deadline, pending.fail, too_late())
    watcher = asyncio.ensure_future(gone()) if gone is not None else None
    if watcher is not None:
        watcher.add_done_callback(lambda _: pending.future.cancel())

    def settled(_: Any) -> None:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()

    pending.future.add_done_callback(settled)


def _run_at_once(lane: Lane, parts: list[Part]) -> None:
    chunk, began = _assembled(lane, parts)
    if not parts:
        return
    try:
        outputs, seconds_ns = _timed(lane.model, chunk)
    except Exception as error:
        _fail(lane, parts, error)
        return
    _hand_out(lane, parts, outputs, began, seconds_ns)


def _assembled(lane: Lane, parts: list[Part]) -> tuple[Array, int]:
    """The batch as one array, and when it was begun (ns)."""
    began = time.perf_counter_ns()
    tally = lane.tally
    if len(parts) == 1:
        pending, start, size = parts[0]
        chunk = pending.rows if size == len(pending.rows) else pending.rows[start : start + size]
    else:
        chunk = np.concatenate(
            [
                pending.rows if size == len(pending.rows) else pending.rows[start : start + size]
                for pending, start, size in parts
            ]
        )
    if not np.isfinite(chunk).all():
        chunk = _without_nonfinite(parts)
    if lane.drift is not None:
        lane.drift.see(chunk)
    if lane.layers is not None:
        lane.layers.see(chunk)
    tally.queue_ns += sum(began - pending.since for pending, start, _ in parts if start == 0)
    tally.input_ns += time.perf_counter_ns() - began
    return chunk, began


def _without_nonfinite(parts: list[Part]) -> Array:
    """The batch without the requests that hold such numbers, which are told so; a batch of none is none."""
    kept = []
    for part in list(parts):
        pending, start, size = part
        rows = pending.rows[start : start + size]
        if np.isfinite(rows).all():
            kept.append(rows)
        else:
            pending.fail(NotFinite("a value is not finite"))
            parts.remove(part)
    return np.concatenate(kept) if kept else pending.rows[:0]


def _timed(model: Model, chunk: Array) -> tuple[list[Array], int]:
    began = time.perf_counter_ns()
    outputs = model.run(chunk)
    return outputs, time.perf_counter_ns() - began


def _hand_out(lane: Lane, parts: list[Part], outputs: list[Array], began: int, compute_ns: int) -> None:
    ran = time.perf_counter_ns()
    tally = lane.tally
    rows = len(outputs[0])
    finite = all(bool(np.isfinite(output).all()) for output in outputs)
    if len(parts) == 1 and finite:
        pending, start, size = parts[0]
        pending.answer(start, outputs, size)
    else:
        place = 0
        for pending, start, size in parts:
            answers = [output[place : place + size] for output in outputs]
            place += size
            if finite or not _refused(pending, start, answers):
                pending.answer(start, answers, size)
    ended = time.perf_counter_ns()
    for pending, _, _ in parts:
        if pending.future.done():
            tally.succeeded += 1
            tally.total_ns += ended - pending.since
    tally.last_ms = time.time_ns() // 1_000_000
    tally.rows += rows
    tally.batches += 1
    tally.sizes[rows] += 1
    tally.size_ns[rows] += compute_ns
    tally.compute_ns += compute_ns
    tally.output_ns += ended - ran


def _refused(pending: Pending, start: int, answers: list[Array]) -> bool:
    """Whether one of these rows has no finite answer: its request is told which."""
    for index in range(len(answers[0])):
        if not all(np.isfinite(output[index]).all() for output in answers):
            pointer = f"/rows/{start + index}"
            problem = FieldProblem(pointer, "answer_not_finite", NOT_FINITE_ANSWER)
            pending.fail(InputInvalid(f"{pointer}: {NOT_FINITE_ANSWER}", (problem,)))
            return True
    return False


def _fail(lane: Lane, parts: list[Part], error: BaseException) -> None:
    ended = time.perf_counter_ns()
    for pending, _, _ in parts:
        lane.tally.failed += 1
        lane.tally.failed_ns += ended - pending.since
        pending.fail(Unavailable(f"version {lane.version} of model {lane.name} could not answer: {error}"))
