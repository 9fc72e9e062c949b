"""From a body to the bytes of its answer, for each of the forms in which rows come."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
from starlette.types import Receive

from api.inference.batching import DEFAULT_PRIORITY, Batcher, NotFinite
from api.inference.categories import by_column
from api.inference.floats import FloatReader
from api.inference.lanes import Array, Lane
from api.inference.pictures import pictures
from api.inference.replies import JSON, infer_reply
from api.inference.rows import array_of, parse_rows
from api.inference.shadows import Shadows
from api.inference.tensors import as_rows
from api.inference.wire import INPUT, InferReader
from core.errors import UnsupportedMedia

LARGE_BYTES = 256 * 1024
"""A body from this size on, or with pictures, is read in a thread, so that it holds nobody up."""
HEADER_BYTES = 4096
Headers = dict[bytes, bytes]
Reply = tuple[bytes, tuple[bytes, bytes], int | None]
"""(body, content type as a header, bytes of the header where tensors follow it)."""


class Answering:
    def __init__(self, batcher: Batcher, maximum_rows: int, seconds: float) -> None:
        self._batcher = batcher
        self.shadows = Shadows(batcher)
        self._maximum_rows = maximum_rows
        self._seconds = seconds
        self._infer_reader = InferReader(maximum_rows)
        self._floats = FloatReader()
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="read")

    def close(self) -> None:
        self._reading.shutdown(wait=False, cancel_futures=True)

    async def predict(
        self, lane: Lane, body: bytes, headers: Headers, receive: Receive, shadow: Lane | None = None
    ) -> Reply:
        """`{"rows": […]}` or an image → `{"predictions": […], "model", "version", "statistics_sha256"}`."""
        began = time.perf_counter_ns()
        if headers.get(b"content-type", b"").startswith(b"image/"):
            rows = await self._beside(pictures, [body], lane.model, "/body")
        else:
            rows = self._floats.rows(body, lane.model.shape, self._maximum_rows) if len(body) < LARGE_BYTES else None
            if rows is None:
                rows = await self._beside(self._exact_rows, body, lane)
        try:
            outputs = await self.run(lane, rows, receive, began) if len(rows) else lane.model.no_rows()
        except NotFinite:
            self._exact_rows(body, lane)  # which says where
            raise
        if shadow is not None and len(rows):
            self.shadows.send(lane, shadow, rows, outputs)
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

    async def infer(
        self, lane: Lane, body: bytes, headers: Headers, receive: Receive, shadow: Lane | None = None
    ) -> Reply:
        """A request of the Open Inference Protocol, JSON or binary."""
        began = time.perf_counter_ns()
        if not headers.get(b"content-type", b"application/").startswith(b"application/"):
            raise UnsupportedMedia("send application/json, or application/octet-stream with binary tensors")
        length = headers.get(b"inference-header-content-length")
        if len(body) >= LARGE_BYTES or b'"BYTES"' in body[:HEADER_BYTES]:
            request = await self._beside(InferReader(self._maximum_rows).read, body, length, lane)
        else:
            request = self._infer_reader.read(body, length, lane)
        try:
            outputs = await self.run(lane, request.rows, receive, began, request.timeout_seconds, request.priority)
        except NotFinite:
            as_rows(request.rows, request.rows.shape, f"input {INPUT!r}")  # which says where
            raise
        if shadow is not None:
            self.shadows.send(lane, shadow, request.rows, outputs)
        done = time.perf_counter_ns()
        reply = infer_reply(request, outputs, lane)
        lane.tally.reply_ns += time.perf_counter_ns() - done
        return reply

    async def answers(self, lane: Lane, rows: Array, receive: Receive) -> list[Array]:
        """The outputs for rows that are known to be finite, at least one."""
        return await self.run(lane, rows, receive, time.perf_counter_ns())

    def run(
        self,
        lane: Lane,
        rows: Array,
        receive: Receive,
        began: int,
        seconds: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> "asyncio.Future[list[Array]]":
        """The outputs for at least one row. Raises what `Batcher.submit` does.

        `began` (ns): when its body was whole.
        """
        lane.tally.parse_ns += time.perf_counter_ns() - began
        lane.tally.requests += 1
        deadline = asyncio.get_running_loop().time() + (seconds or self._seconds)
        return self._batcher.submit(lane, rows, deadline, priority, receive)

    def _exact_rows(self, body: bytes, lane: Lane) -> Array:
        rows = parse_rows(body, self._maximum_rows)
        if rows and isinstance(rows[0], str):
            return pictures(rows, lane.model, "/rows")
        inputs = by_column(rows, lane.model.fields, lane.model.columns)
        return array_of(inputs, lane.model.shape, lane.model.columns)

    async def _beside(self, read: Any, *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._reading, read, *given)
