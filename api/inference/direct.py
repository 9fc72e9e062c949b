"""The two hot routes without a task of their own, where all that they need is in memory.

For each request uvicorn makes a task, an event and three messages, which for a row of a small model costs more than
its answer. A request whose key and version were let through a moment ago, and whose body is whole as soon as its
headers are and can be read at once, is answered from here. So is, without being parsed at all, one whose head has the
same bytes as the one before it on its connection. Whatever is otherwise, errors included, goes through ASGI as if
nothing had been tried.
"""

import logging
import time
from functools import partial
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.inference.answering import Question
from api.inference.batching import NotFinite
from api.inference.grants import Asked
from api.inference.heads import Headers, KnownHead, known_head
from api.inference.hot import HotPath
from api.inference.lanes import Array, Lane, Pending
from api.packing import gains
from api.resources import Resources
from core.errors import EvenkeelError

logger = logging.getLogger(__name__)


class Request(NamedTuple):
    """One that is answered from here. `cycle`: what uvicorn made of it, or None, and then `data` is all of it."""

    question: Question
    lane: Lane
    infer: bool
    began: int
    cycle: Any
    data: bytes


class DirectProtocol(HttpToolsProtocol):
    """A connection. uvicorn parses what comes, times it out, and keeps requests in order."""

    hot: HotPath

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._held: Any = None  # a request whose headers came, and whose body may follow in the same packet
        self._pending: Pending | None = None
        self._known: KnownHead | None = None
        self._parsed = b""  # what is being parsed, where a request begins with it
        self._amid = False  # whether the parser has part of a request
        self._unparsed = False  # a request that was not parsed has no answer yet
        self._behind: list[bytes] = []  # what came after it
        self._instead: Any = None  # what answers the request that is being parsed
        self._ending = False
        self._answered_at = 0.0

    def data_received(self, data: bytes) -> None:
        if self._unparsed:
            self._behind.append(data)
            self.flow.pause_reading()
        elif self._known is None or self._amid or not self._answers_unparsed(self._known, data):
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._parsed = b"" if self._amid else data
        super().data_received(data)
        self._parsed = b""
        if self._held is not None:  # the rest of its body is still on its way
            held, self._held = self._held, None
            super()._start_asgi_task(held, self.app)

    def on_message_begin(self) -> None:
        self._amid = True
        super().on_message_begin()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if self._instead is not None:
            super()._start_asgi_task(cycle, self._instead)
        elif app is self.app and cycle.more_body and self._is_hot(cycle):
            self._held = cycle
        else:
            super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        self._amid = False
        super().on_message_complete()
        held, self._held = self._held, None
        if held is not None and not self._answers(held):
            super()._start_asgi_task(held, self.app)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._behind.clear()
        self.hot.forget(self)
        if self._pending is not None:
            self._pending.leave()

    def shutdown(self) -> None:
        if self._unparsed:
            self._ending = True
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Requests that were not parsed leave uvicorn's timer as it is."""
        idle = 0.0 if self._unparsed else self.loop.time() - self._answered_at
        if idle >= self.timeout_keep_alive:
            super().timeout_keep_alive_handler()
        else:
            left = self.timeout_keep_alive - idle
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)

    def _is_hot(self, cycle: Any) -> bool:
        scope = cycle.scope
        free = not self.flow.write_paused and not cycle.waiting_for_100_continue
        return free and scope["method"] == "POST" and self.hot.answers(scope["path"])

    def _answers_unparsed(self, known: KnownHead, data: bytes) -> bool:
        """Whether it will be answered from here."""
        began = time.perf_counter_ns()
        body = known.body(data)
        if body is None or not self.cycle.response_complete or self.flow.write_paused:
            return False
        found = self._read(known.asked, known.headers, known.infer, body)
        if found is None:
            return False
        question, lane = found
        if not self._resources.engine.batcher.has_room(lane, len(question.rows)):
            return False
        self._unparsed = True
        self._ask(Request(question, lane, known.infer, began, None, data))
        return True

    def _answers(self, cycle: Any) -> bool:
        """The same for one that uvicorn has parsed."""
        began = time.perf_counter_ns()
        scope = cycle.scope
        infer = scope["path"].endswith("/infer")
        headers = dict(scope["headers"])
        asked = (headers.get(b"authorization", b""), scope["path"], scope["query_string"])
        found = self._read(asked, headers, infer, bytes(cycle.body))
        if found is None:
            return False
        if cycle.keep_alive and b"transfer-encoding" not in headers:
            self._known = known_head(self._parsed, len(cycle.body), asked, headers, infer)
        try:
            self._ask(Request(*found, infer, began, cycle, b""))
        except EvenkeelError as error:
            app: Any = self.hot.refusing(error)
            super()._start_asgi_task(cycle, app)
        return True

    @property
    def _resources(self) -> Resources:
        resources: Resources = self.app_state["resources"]
        return resources

    def _read(self, asked: Asked, headers: Headers, infer: bool, body: bytes) -> tuple[Question, Lane] | None:
        resources = self._resources
        route = resources.grants.known(asked) if len(body) <= self.hot.maximum_body_bytes else None
        if route is None or route.shadow is not None or b"content-encoding" in headers:
            return None
        lane = route.lane if route.canary is None else route.pick()
        answering = resources.answering
        read = answering.infer_question if infer else answering.predict_question
        try:
            question = read(lane, body, headers)
        except EvenkeelError:
            return None
        if question is None or not len(question.rows):
            return None
        if gains(headers.get(b"accept-encoding"), len(question.rows) * sum(lane.model.widths)):
            return None
        return question, lane

    def _ask(self, request: Request) -> None:
        """Raises Overloaded."""
        question, lane = request.question, request.lane
        resources = self._resources
        pending = resources.answering.pending(lane, question, request.began, partial(self._settled, request))
        self._pending = pending
        resources.engine.batcher.enter(lane, pending, question.priority, alone=self.hot.again(self))

    def _settled(self, request: Request, answer: list[Array] | EvenkeelError | None) -> None:
        self._pending = None
        if answer is None or self.transport.is_closing():
            return
        try:
            if isinstance(answer, list):
                self._send(request, answer)
                self.hot.count(request.infer, 200, request.began)
            else:
                self._refuse(request, answer)
        except Exception:
            logger.exception("a prediction could not be answered")
            self.transport.abort()

    def _refuse(self, request: Request, error: EvenkeelError) -> None:
        """A value that is not finite is looked for by the application, which says where it is."""
        app: Any = self.app if isinstance(error, NotFinite) else self.hot.refusing(error)
        if request.cycle is not None:
            super()._start_asgi_task(request.cycle, app)
            return
        self._instead = app
        self._parse(request.data)
        self._instead = None
        if self._ending:
            super().shutdown()
        self._go_on()

    def _send(self, request: Request, outputs: list[Array]) -> None:
        body, media, header_size = request.question.told(outputs, request.lane)
        more = b"" if header_size is None else b"inference-header-content-length: %d\r\n" % header_size
        cycle = request.cycle
        last = self._ending if cycle is None else not cycle.keep_alive
        if last:
            more += b"connection: close\r\n"
        head = self._head(request.lane, media)
        ids = (len(body), self.hot.request_id(), body)
        self.transport.write(b"%b%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n%b" % (head, more, *ids))
        if last:
            self.transport.close()
        if cycle is not None:
            cycle.response_started = cycle.response_complete = True
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self._answered_at = self.loop.time()
            self._go_on()

    def _head(self, lane: Lane, media: tuple[bytes, bytes]) -> bytes:
        """What answers of this version begin with, until the time of day that it says is another."""
        defaults = self.server_state.default_headers
        kept = lane.beginnings.get(media)
        if kept is None or kept[0] is not defaults:
            lines = b"".join(b"%b: %b\r\n" % header for header in (*defaults, *lane.headers, media))
            kept = lane.beginnings[media] = (defaults, STATUS_LINE[200] + lines)
        return kept[1]

    def _go_on(self) -> None:
        """What came behind a request that was not parsed is looked at when this turn of the loop is over."""
        if self._behind:
            self.loop.call_soon(self._look_behind)
        else:
            self._unparsed = False

    def _look_behind(self) -> None:
        self._unparsed = False
        data = b"".join(self._behind)
        self._behind.clear()
        if data and not self.transport.is_closing():
            self.flow.resume_reading()
            self.data_received(data)


def protocol_of(hot: HotPath) -> type[DirectProtocol]:
    """What uvicorn makes of each connection."""
    return type("DirectProtocol", (DirectProtocol,), {"hot": hot})
