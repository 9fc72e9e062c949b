"""Predict and infer as plain ASGI, in front of the router: the two routes whose speed matters.

What is answered here is counted like everything else (`api.edge`), has a request id, and fails in the form of
its protocol. All other requests pass.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from itertools import count
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.inference.bodies import body_of
from api.inference.resolution import Wanted
from api.meters import Meters
from api.packing import packed
from api.problems import our_problem, unexpected
from api.resources import Resources
from api.schemas.models import LARGEST_VERSION
from core.errors import EvenkeelError, FieldProblem, InputInvalid, NotAllowed, NotFound
from core.identifiers import new_id

logger = logging.getLogger(__name__)
PATH = re.compile(r"/v1/models/(?P<one>[^/]+)/predict|/v2/models/(?P<two>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
ENDS = ("/predict", "/infer")
PREDICT_ROUTE = "/v1/models/{name}/predict"
INFER_ROUTE = "/v2/models/{name}/infer"
PARAMETERS = frozenset(("version", "alias"))
Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]


class HotPath:
    def __init__(self, maximum_body_bytes: int, meters: Meters) -> None:
        self._maximum_body_bytes = maximum_body_bytes
        self._meters = meters
        self._prefix = new_id("req").encode()
        self._numbers = count()

    def answers(self, path: str) -> bool:
        return path.endswith(ENDS) and _is_hot(path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._respond(scope, send, lambda infer: self._answer(scope, receive, infer))

    def refusing(self, error: EvenkeelError) -> ASGIApp:
        """Answers its request with an error that is known already."""

        async def refuse(_infer: bool) -> Answer:
            raise error

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await self._respond(scope, send, refuse)

        return application

    def request_id(self) -> bytes:
        return b"%b%x" % (self._prefix, next(self._numbers))

    def count(self, infer: bool, status: int, began: int) -> None:
        """An answer to a request whose headers came at `began` (ns)."""
        self._meters.hot.count(INFER_ROUTE if infer else PREDICT_ROUTE, status, time.perf_counter_ns() - began)

    async def _respond(self, scope: Scope, send: Send, answer: Callable[[bool], Awaitable[Answer]]) -> None:
        infer = scope["path"].endswith("/infer")
        began = time.perf_counter_ns()
        request_id = self.request_id()
        scope["state"]["request_id"] = request_id.decode()
        try:
            status, headers, body = await answer(infer)
        except asyncio.CancelledError:
            return  # the client is gone, and its rows were taken out of the queue
        except EvenkeelError as error:
            status, headers, body = _told(our_problem(Request(scope), error))
        except Exception:
            logger.exception("request %s failed: %s", request_id, scope["path"])
            status, headers, body = _told(unexpected(Request(scope)))
        headers = [*headers, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self.count(infer, status, began)

    async def _answer(self, scope: Scope, receive: Receive, infer: bool) -> Answer:
        if scope["method"] != "POST":
            raise NotAllowed(f"{scope['path']} does not answer {scope['method']}: send POST")
        resources: Resources = scope["state"]["resources"]
        headers = dict(scope["headers"])
        asked = (headers.get(b"authorization", b""), scope["path"], scope["query_string"])
        route = resources.grants.known(asked) or await resources.grants.ask(asked, _wanted(*asked[1:]))
        lane = route.lane if route.canary is None else route.pick()
        if lane.rows_waiting:
            resources.engine.batcher.admit(lane, 1)  # before its body is read
        message = await receive()
        body: bytes = message.get("body", b"")
        if b"content-encoding" in headers or message.get("more_body", False) or len(body) > self._maximum_body_bytes:
            body = await body_of(receive, headers, self._maximum_body_bytes, message)
        answer = resources.answering.infer if infer else resources.answering.predict
        content, media, header_size = await answer(lane, body, headers, receive, route.shadow)
        content, packing = await packed(content, headers.get(b"accept-encoding"))
        told = [media, *lane.headers, *packing]
        if header_size is not None:
            told.append((b"inference-header-content-length", b"%d" % header_size))
        return 200, told, content


@lru_cache(4096)
def _is_hot(path: str) -> bool:
    """Whether this address is one of ours to answer."""
    return PATH.fullmatch(path) is not None


@lru_cache(4096)
def _wanted(path: str, query: bytes) -> Wanted:
    """What the address names, for no tenant yet. Raises NotFound, InputInvalid."""
    match = PATH.fullmatch(path)
    assert match is not None  # it led here
    name = match["one"] or match["two"]
    if NAME.fullmatch(name) is None:
        raise NotFound(f"there is no model {name}")
    if match["two"]:
        return wanted_version("", name, match["version"])
    given = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    for unknown in sorted(given.keys() - PARAMETERS):
        message = f"{unknown[:40]!r} is no parameter of this route: leave it out; known here are version, alias"
        raise InputInvalid(message, (FieldProblem(f"/query/{unknown[:40]}", "unknown_parameter", message),))
    number, alias = given.get("version"), given.get("alias")
    if number is not None and not (number.isascii() and number.isdigit() and 0 < int(number[:12]) <= LARGEST_VERSION):
        message = f"{number[:40]!r} is no version number"
        raise InputInvalid(message, (FieldProblem("/query/version", "bad_version", message),))
    return Wanted("", name, int(number) if number else None, alias)


def wanted_version(tenant_id: str, name: str, version: str | None) -> Wanted:
    """The version segment of an address is a number or an alias. Raises NotFound."""
    if version is None:
        return Wanted(tenant_id, name)
    if version.isascii() and version.isdigit():
        if not 0 < int(version[:12]) <= LARGEST_VERSION:
            raise NotFound(f"model {name} has no version {version[:40]}")
        return Wanted(tenant_id, name, version=int(version))
    if NAME.fullmatch(version) is None:
        raise NotFound(f"model {name} has no version {version[:80]}")
    return Wanted(tenant_id, name, alias=version)


def _told(response: Any) -> Answer:
    headers = [(name, value) for name, value in response.raw_headers if name != b"content-length"]
    return response.status_code, headers, response.body
