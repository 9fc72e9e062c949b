"""The edge of the interface, as plain ASGI: a request id for everyone, bodies counted as they
stream in, requests measured, and an unexpected error told without its insides."""

import logging
import time

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.meters import Meters
from api.problems import problem, unexpected
from core.errors import TooLarge
from core.identifiers import new_id

logger = logging.getLogger(__name__)
UNROUTED = "unrouted"


class Edge:
    def __init__(self, app: ASGIApp, maximum_body_bytes: int, meters: Meters) -> None:
        self._app = app
        self._maximum_body_bytes = maximum_body_bytes
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        began, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                self._count(scope, status, time.perf_counter() - began)
            await send(message)

        try:
            counted = receive if _counts_for_itself(scope) else self._counted(receive)
            await self._answer(scope, counted, send_with_id)
        except ClientDisconnect:
            return  # nobody is left to be told anything
        except Exception:
            if status:
                raise
            logger.exception("request %s failed: %s %s", request_id, scope["method"], scope["path"])
            await unexpected(Request(scope))(scope, receive, send_with_id)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            detail = "the address contains a NUL character: remove it"
            await problem(Request(scope), 400, "malformed_request", detail)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _counted(self, receive: Receive) -> Receive:
        """Counts what really arrives: a chunked body states no length."""
        arrived = 0

        async def receive_counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > self._maximum_body_bytes:
                raise TooLarge(
                    f"the body is larger than {self._maximum_body_bytes} bytes: send it in parts, "
                    "or raise EVENKEEL_MAXIMUM_BODY_BYTES"
                )
            return message

        return receive_counted

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNROUTED)
        self._meters.requests.labels(scope["method"], route, str(status)).inc()
        self._meters.latency.labels(scope["method"], route).observe(seconds)


def _counts_for_itself(scope: Scope) -> bool:
    """An upload, which is written to the disk as it arrives, has a bound of its own."""
    return bool(scope["method"] == "POST" and scope["path"] == "/v1/datasets")
