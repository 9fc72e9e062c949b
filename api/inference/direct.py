"""The two hot routes without a task of their own, where all that they need is in memory.

For each request uvicorn makes a task, an event and three messages, which for a row of a small model costs more than
its answer. A request whose key and version were let through a moment ago, and whose body is whole as soon as its
headers are and can be read at once, is answered from here. Whatever is otherwise, errors included, goes through
ASGI as if nothing had been tried.
"""

import asyncio
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.inference.answering import Question
from api.inference.batching import NotFinite
from api.inference.hot import HotPath
from api.inference.lanes import Array, Lane
from api.packing import gains
from api.resources import Resources
from core.errors import EvenkeelError

Future = asyncio.Future[list[Array]]


class DirectProtocol(HttpToolsProtocol):
    """A connection. uvicorn parses what comes, times it out, and keeps requests in order."""

    hot: HotPath

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._held: Any = None  # a request whose headers came, and whose body may follow in the same packet
        self._future: Future | None = None

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if app is self.app and cycle.more_body and self._is_hot(cycle):
            self._held = cycle
        else:
            super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        held, self._held = self._held, None
        if held is not None and not self._answers(held):
            super()._start_asgi_task(held, self.app)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._held is not None:  # the rest of its body is still on its way
            held, self._held = self._held, None
            super()._start_asgi_task(held, self.app)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._future is not None:
            self._future.cancel()

    def _is_hot(self, cycle: Any) -> bool:
        scope = cycle.scope
        free = not self.flow.write_paused and not cycle.waiting_for_100_continue
        return free and scope["method"] == "POST" and self.hot.answers(scope["path"])

    def _answers(self, cycle: Any) -> bool:
        """Whether it will be answered from here."""
        began = time.perf_counter_ns()
        scope = cycle.scope
        infer = scope["path"].endswith("/infer")
        headers = dict(scope["headers"])
        resources: Resources = scope["state"]["resources"]
        route = resources.grants.known((headers.get(b"authorization", b""), scope["path"], scope["query_string"]))
        if route is None or route.shadow is not None or b"content-encoding" in headers:
            return False
        lane = route.lane if route.canary is None else route.pick()
        answering = resources.answering
        read = answering.infer_question if infer else answering.predict_question
        try:
            question = read(lane, bytes(cycle.body), headers)
        except EvenkeelError:
            return False
        if question is None or not len(question.rows):
            return False
        if gains(headers.get(b"accept-encoding"), len(question.rows) * sum(lane.model.widths)):
            return False
        try:
            future = answering.run(lane, question.rows, None, began, question.seconds, question.priority)
        except EvenkeelError as error:
            super()._start_asgi_task(cycle, self._told(error))
            return True
        self._future = future
        future.add_done_callback(lambda done: self._settled(done, cycle, question, lane, infer, began))
        return True

    def _settled(self, future: Future, cycle: Any, question: Question, lane: Lane, infer: bool, began: int) -> None:
        self._future = None
        if future.cancelled() or cycle.disconnected:
            return
        error = future.exception()
        if error is None:
            self._send(cycle, question, lane, future.result())
            self.hot.count(infer, 200, began)
        else:
            super()._start_asgi_task(cycle, self._told(error))

    def _told(self, error: BaseException) -> Any:
        if isinstance(error, NotFinite) or not isinstance(error, EvenkeelError):
            return self.app  # which says where, or logs what it was
        return self.hot.refusing(error)

    def _send(self, cycle: Any, question: Question, lane: Lane, outputs: list[Array]) -> None:
        body, media, header_size = question.told(outputs, lane)
        head = [STATUS_LINE[200]]
        head += [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
        head.append(lane.head)
        if header_size is not None:
            head.append(b"inference-header-content-length: %d\r\n" % header_size)
        if not cycle.keep_alive:
            head.append(b"connection: close\r\n")
        head.append(b"%b: %b\r\ncontent-length: %d\r\n" % (*media, len(body)))
        head.append(b"x-request-id: %b\r\n\r\n%b" % (self.hot.request_id(), body))
        cycle.response_started = cycle.response_complete = True
        self.transport.write(b"".join(head))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()


def protocol_of(hot: HotPath) -> type[DirectProtocol]:
    """What uvicorn makes of each connection."""
    return type("DirectProtocol", (DirectProtocol,), {"hot": hot})
