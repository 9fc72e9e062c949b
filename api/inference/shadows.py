"""Copies of requests to a second version, whose answers are compared and never given."""

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np

from api.inference.batching import Batcher
from api.inference.lanes import Array, Lane
from core.errors import EvenkeelError

PRIORITY = 1_000_000
"""After everyone who waits for an answer."""
MOST_WAITING_ROWS = 256
SECONDS = 30.0
RELATIVE = 1e-3
Pair = tuple[tuple[str, int], tuple[str, int | None]]


@dataclass
class Comparison:
    requests: int = 0
    rows: int = 0
    skipped: int = 0
    disagreements: int = 0
    largest_difference: float = 0.0
    total_difference: float = 0.0

    def add(self, given: Array, other: Array, classification: bool) -> None:
        difference = np.abs(given - other)
        self.requests += 1
        self.rows += len(given)
        self.largest_difference = max(self.largest_difference, float(difference.max()))
        self.total_difference += float(difference.mean(axis=1).sum())
        if classification:
            self.disagreements += int((given.argmax(axis=1) != other.argmax(axis=1)).sum())
        else:
            scale = np.maximum(np.abs(given), np.abs(other))
            self.disagreements += int((difference > RELATIVE * scale).sum())


class Shadows:
    """Belongs to the event loop. A shadow that can not keep up loses copies, and no client waits for it."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._found: dict[Pair, Comparison] = {}
        self._running: set[asyncio.Task[None]] = set()

    def send(self, lane: Lane, shadow: Lane, rows: Array, outputs: list[Array]) -> None:
        comparison = self._found.setdefault((lane.key, shadow.key), Comparison())
        if shadow.rows_waiting + len(rows) > MOST_WAITING_ROWS or shadow.model.shape != lane.model.shape:
            comparison.skipped += 1
            return
        task = asyncio.get_running_loop().create_task(self._compare(comparison, lane, shadow, rows, outputs))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def of(self, key: tuple[str, int], shadow: tuple[str, int | None]) -> dict[str, Any]:
        found = self._found.get((key, shadow), Comparison())
        return {
            "requests": found.requests,
            "rows": found.rows,
            "skipped": found.skipped,
            "disagreements": found.disagreements,
            "largest_difference": found.largest_difference if found.rows else None,
            "mean_difference": found.total_difference / found.rows if found.rows else None,
        }

    async def _compare(
        self, comparison: Comparison, lane: Lane, shadow: Lane, rows: Array, outputs: list[Array]
    ) -> None:
        deadline = asyncio.get_running_loop().time() + SECONDS
        try:
            others = await self._batcher.submit(shadow, rows, deadline, PRIORITY)
        except EvenkeelError:
            comparison.skipped += 1
            return
        given, other = outputs[lane.model.answer], others[shadow.model.answer]
        if given.shape != other.shape:
            comparison.skipped += 1
            return
        comparison.add(given, other, lane.model.labels is not None)
