"""From a body to the bytes of its answer, for each of the forms in which rows come."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.types import Receive

from api.inference.batching import DEFAULT_PRIORITY, Batcher
from api.inference.floats import FloatReader
from api.inference.lanes import Array, Lane
from api.inference.pictures import pictures
from api.inference.replies import JSON, infer_reply
from api.inference.rows import array_of, parse_rows
from api.inference.wire import InferReader

LARGE_BYTES = 256 * 1024
"""A body from this size on, or with pictures, is read in a thread, so that it holds nobody up."""
HEADER_BYTES = 4096
Headers = dict[bytes, bytes]
Reply = tuple[bytes, bytes, int | None]
"""(body, content type, bytes of the header where tensors follow it)."""


@dataclass(slots=True)
class Timing:
    """When a request came and when its body was whole (ns)."""

    came: int
    read: int


class Answering:
    def __init__(self, batcher: Batcher, maximum_rows: int, seconds: float) -> None:
        self._batcher = batcher
        self._maximum_rows = maximum_rows
        self._seconds = seconds
        self._infer_reader = InferReader(maximum_rows)
        self._floats = FloatReader()
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="read")

    def close(self) -> None:
        self._reading.shutdown(wait=False, cancel_futures=True)

    async def predict(self, lane: Lane, body: bytes, headers: Headers, receive: Receive, timing: Timing) -> Reply:
        """`{"rows": […]}` or an image → `{"predictions": […], "model", "version", "statistics_sha256"}`."""
        if headers.get(b"content-type", b"").startswith(b"image/"):
            rows = await self._beside(pictures, [body], lane.model, "/body")
        else:
            rows = self._floats.rows(body, lane.model.shape, self._maximum_rows) if len(body) < LARGE_BYTES else None
            if rows is None:
                rows = await self._beside(self._exact_rows, body, lane)
        outputs = await self.run(lane, rows, receive, timing) if len(rows) else lane.model.no_rows()
        done = time.perf_counter_ns()
        content = orjson.dumps(
            {
                "predictions": lane.model.told(outputs),
                "model": lane.name,
                "version": lane.version,
                "statistics_sha256": lane.statistics_sha256,
            }
        )
        lane.tally.reply_ns += time.perf_counter_ns() - done
        return content, JSON, None

    async def infer(self, lane: Lane, body: bytes, headers: Headers, receive: Receive, timing: Timing) -> Reply:
        """A request of the Open Inference Protocol, JSON or binary."""
        length = headers.get(b"inference-header-content-length")
        if len(body) >= LARGE_BYTES or b'"BYTES"' in body[:HEADER_BYTES]:
            request = await self._beside(InferReader(self._maximum_rows).read, body, length, lane)
        else:
            request = self._infer_reader.read(body, length, lane)
        outputs = await self.run(
            lane, request.rows, receive, timing, request.timeout_seconds or self._seconds, request.priority
        )
        done = time.perf_counter_ns()
        reply = infer_reply(request, outputs, lane)
        lane.tally.reply_ns += time.perf_counter_ns() - done
        return reply

    async def run(
        self,
        lane: Lane,
        rows: Array,
        receive: Receive,
        timing: Timing,
        seconds: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> list[Array]:
        """The outputs for at least one row. Raises what `Batcher.submit` does; CancelledError: the client is gone."""
        lane.tally.parse_ns += time.perf_counter_ns() - timing.read
        lane.tally.requests += 1
        deadline = asyncio.get_running_loop().time() + (seconds or self._seconds)
        return await self._batcher.submit(lane, rows, deadline, priority, receive)

    def _exact_rows(self, body: bytes, lane: Lane) -> Array:
        rows = parse_rows(body, self._maximum_rows)
        if rows and isinstance(rows[0], str):
            return pictures(rows, lane.model, "/rows")
        return array_of(rows, lane.model.shape, lane.model.columns)

    async def _beside(self, read: Any, *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._reading, read, *given)
