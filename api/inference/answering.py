"""From a body to the bytes of its answer, for each of the forms in which rows come."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from starlette.types import Receive

from api.inference.batching import DEFAULT_PRIORITY, Batcher, NotFinite
from api.inference.categories import by_column
from api.inference.floats import FloatReader
from api.inference.lanes import Array, Lane
from api.inference.pictures import pictures
from api.inference.replies import Reply, infer_reply, predict_reply
from api.inference.rows import array_of, parse_rows
from api.inference.shadows import Shadows
from api.inference.tensors import INPUT, as_rows
from api.inference.wire import InferReader, InferRequest
from core.errors import UnsupportedMedia

LARGE_BYTES = 256 * 1024
"""A body from this size on, or with pictures, is read in a thread, so that it holds nobody up."""
HEADER_BYTES = 4096
Headers = dict[bytes, bytes]


class Question(NamedTuple):
    """Rows, and how their answer is told."""

    rows: Array
    reply: Callable[[list[Array], Lane], Reply]
    seconds: float | None = None  # that its answer may take
    priority: int = DEFAULT_PRIORITY

    def told(self, outputs: list[Array], lane: Lane) -> Reply:
        began = time.perf_counter_ns()
        reply = self.reply(outputs, lane)
        lane.tally.reply_ns += time.perf_counter_ns() - began
        return reply


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
        question = self.predict_question(lane, body, headers)
        if question is None and headers.get(b"content-type", b"").startswith(b"image/"):
            question = Question(await self._beside(pictures, [body], lane.model, "/body"), predict_reply)
        elif question is None:
            question = Question(await self._beside(self._exact_rows, body, lane), predict_reply)
        try:
            if not len(question.rows):
                return predict_reply(lane.model.no_rows(), lane)
            return await self._answered(question, lane, receive, began, shadow)
        except NotFinite:
            self._exact_rows(body, lane)  # which says where
            raise

    async def infer(
        self, lane: Lane, body: bytes, headers: Headers, receive: Receive, shadow: Lane | None = None
    ) -> Reply:
        """A request of the Open Inference Protocol, JSON or binary."""
        began = time.perf_counter_ns()
        question = self.infer_question(lane, body, headers)
        if question is None:
            length = headers.get(b"inference-header-content-length")
            reader = InferReader(self._maximum_rows)
            question = _of_protocol(await self._beside(reader.read, body, length, lane))
        try:
            return await self._answered(question, lane, receive, began, shadow)
        except NotFinite:
            as_rows(question.rows, question.rows.shape, f"input {INPUT!r}")  # which says where
            raise

    def predict_question(self, lane: Lane, body: bytes, headers: Headers) -> Question | None:
        """What a body asks that is read at once. None: it takes longer, or another look."""
        if len(body) >= LARGE_BYTES or headers.get(b"content-type", b"").startswith(b"image/"):
            return None
        rows = self._floats.rows(body, lane.model.shape, self._maximum_rows)
        return None if rows is None else Question(rows, predict_reply)

    def infer_question(self, lane: Lane, body: bytes, headers: Headers) -> Question | None:
        """The same for the Open Inference Protocol. Raises UnsupportedMedia and what its reader raises."""
        if not headers.get(b"content-type", b"application/").startswith(b"application/"):
            raise UnsupportedMedia("send application/json, or application/octet-stream with binary tensors")
        if len(body) >= LARGE_BYTES or b'"BYTES"' in body[:HEADER_BYTES]:
            return None
        length = headers.get(b"inference-header-content-length")
        return _of_protocol(self._infer_reader.read(body, length, lane))

    async def _answered(
        self, question: Question, lane: Lane, receive: Receive, began: int, shadow: Lane | None
    ) -> Reply:
        rows = question.rows
        outputs = await self.run(lane, rows, receive, began, question.seconds, question.priority)
        if shadow is not None:
            self.shadows.send(lane, shadow, rows, outputs)
        return question.told(outputs, lane)

    async def answers(self, lane: Lane, rows: Array, receive: Receive) -> list[Array]:
        """The outputs for rows that are known to be finite, at least one."""
        return await self.run(lane, rows, receive, time.perf_counter_ns())

    def run(
        self,
        lane: Lane,
        rows: Array,
        receive: Receive | None,
        began: int,
        seconds: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> "asyncio.Future[list[Array]]":
        """The outputs for at least one row. Raises what `Batcher.submit` does.

        `began` (ns): when its body was whole. `receive`: ends when the client is gone; without it, whoever
        asks cancels.
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


def _of_protocol(request: InferRequest) -> Question:
    def reply(outputs: list[Array], lane: Lane) -> Reply:
        return infer_reply(request, outputs, lane)

    return Question(request.rows, reply, request.timeout_seconds, request.priority)
