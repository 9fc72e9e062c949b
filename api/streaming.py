"""Event streams and long polls. One poller a process asks the database for all jobs that have a
listener; listeners read what it found from a ring, or, when they lag behind it, from the database.
None of them holds a connection while it waits."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.types import Message, Send

from api.meters import Meters
from api.schemas.events import encode_event
from core.db import Database
from core.errors import EvenkeelError
from core.queries import events

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.1
HEARTBEAT_SECONDS = 15.0
LIFETIME_SECONDS = 15 * 60.0
SEND_SECONDS = 30.0
PAGE = 500
RING = 1000
POLLED_AT_ONCE = 500


@dataclass(frozen=True)
class Frame:
    """An event as the bytes that all its listeners are sent."""

    seq: int
    type: str
    content: bytes


class Topic:
    """The newest events of one job that has listeners."""

    def __init__(self) -> None:
        self.listeners = 0
        self.head: int | None = None  # the last seq known to be committed
        self._ring: deque[Frame] = deque(maxlen=RING)
        self._changed = asyncio.Event()

    def begin(self, head: int) -> None:
        """What was committed before the first look is left to the database."""
        self.head = head
        self.wake()

    def add(self, frames: Sequence[Frame]) -> None:
        self._ring.extend(frames)
        self.head = frames[-1].seq
        self.wake()

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def behind(self, seq: int) -> list[Frame] | None:
        """All known events after `seq`, or None when the ring does not reach back to it."""
        if self.head is None:
            return None
        if seq >= self.head:
            return []
        if not self._ring or self._ring[0].seq > seq + 1:
            return None
        return [frame for frame in self._ring if frame.seq > seq]

    async def moved(self, seq: int, seconds: float) -> bool:
        """Whether something newer than `seq` is known within `seconds`. Also ends, early, at any `wake`."""
        if self.head is not None and self.head > seq:
            return True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
        return self.head is not None and self.head > seq


class Streams:
    """All open streams of this process."""

    def __init__(self, database: Database, meters: Meters) -> None:
        self._database = database
        self._meters = meters
        self._topics: dict[str, Topic] = {}
        self._poller: asyncio.Task[None] | None = None
        self._polling = CapacityLimiter(1)
        self.closing = False

    @contextmanager
    def listening(self, job_id: str) -> Iterator[Topic]:
        """While inside, the poller watches the job."""
        topic = self._topics.setdefault(job_id, Topic())
        topic.listeners += 1
        self._meters.streams.inc()
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            yield topic
        finally:
            self._meters.streams.dec()
            topic.listeners -= 1
            if topic.listeners == 0:
                del self._topics[job_id]

    async def frames(self, job_id: str, after: int) -> AsyncIterator[bytes]:
        """Every event of the job after `after`, once and in order, to its `end` event or this stream's."""
        deadline = time.monotonic() + LIFETIME_SECONDS
        seq = after
        with self.listening(job_id) as topic:
            while not self.closing and time.monotonic() < deadline:
                batch = topic.behind(seq)
                if batch is None:
                    batch = await run_sync(self._read, job_id, seq)
                if batch:
                    seq = batch[-1].seq
                    yield b"".join(frame.content for frame in batch)
                    if batch[-1].type == "end":
                        return
                elif not await self._moved_or_closing(topic, seq):
                    yield KEEPALIVE_COMMENT

    async def wait(self, job_id: str, after: int, deadline: float) -> None:
        """Returns when the job has an event after `after`, when `deadline` (monotonic) has passed, or at closing."""
        with self.listening(job_id) as topic:
            while not self.closing and time.monotonic() < deadline:
                if await topic.moved(after, deadline - time.monotonic()):
                    return

    def close(self) -> None:
        """Ends every stream and long poll at once."""
        self.closing = True
        for topic in self._topics.values():
            topic.wake()

    async def _moved_or_closing(self, topic: Topic, seq: int) -> bool:
        deadline = time.monotonic() + HEARTBEAT_SECONDS
        while not self.closing and time.monotonic() < deadline:
            if await topic.moved(seq, deadline - time.monotonic()):
                return True
        return self.closing

    async def _poll(self) -> None:
        while self._topics and not self.closing:
            began = time.monotonic()
            try:
                await self._look(list(self._topics))
            except EvenkeelError as error:
                logger.warning("event streams wait: %s", error.message)
                await asyncio.sleep(1.0)
            await asyncio.sleep(max(0.0, began + POLL_SECONDS - time.monotonic()))

    async def _look(self, job_ids: list[str]) -> None:
        heads = await run_sync(self._heads, job_ids, limiter=self._polling)
        for job_id, head in heads.items():
            topic = self._topics.get(job_id)
            if topic is None:
                continue
            if topic.head is None:
                topic.begin(head)
            elif head > topic.head:
                frames = await run_sync(self._read, job_id, topic.head, limiter=self._polling)
                if frames:
                    topic.add(frames)

    def _heads(self, job_ids: list[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        with self._database.read() as connection:
            for start in range(0, len(job_ids), POLLED_AT_ONCE):
                rows = connection.execute(events.heads(job_ids[start : start + POLLED_AT_ONCE]))
                found |= {row.id: row.last_seq for row in rows}
        return found

    def _read(self, job_id: str, seq: int) -> list[Frame]:
        with self._database.read() as connection:
            rows = connection.execute(events.after(job_id, seq, PAGE)).all()
        return [_frame(row) for row in rows]


class EventStream(EventSourceResponse):
    """A stream that gives up on a reader who stopped reading, and always ends its generator."""

    def __init__(self, content: AsyncIterator[bytes]) -> None:
        super().__init__(content, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            await asyncio.wait_for(send(message), SEND_SECONDS)

        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            with suppress(TimeoutError):
                await super().stream_response(send_in_time)


def _frame(row: Any) -> Frame:
    content = format_sse_event(data_str=encode_event(row).decode(), event=row.type, id=str(row.seq))
    return Frame(row.seq, row.type, content)
