"""Predict and infer as plain ASGI, in front of the router: the two routes whose speed matters.

What is answered here is counted like everything else (`api.edge`), has a request id, and fails in the form of
its protocol. All other requests pass.
"""

import asyncio
import logging
import re
import time
from dataclasses import replace
from functools import lru_cache
from itertools import count
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.inference.answering import Answering, Timing
from api.inference.bodies import body_of
from api.inference.resolution import Wanted
from api.keycache import Caller
from api.meters import Meters
from api.problems import our_problem, unexpected
from api.resources import Resources
from api.schemas.models import LARGEST_VERSION
from core.errors import EvenkeelError, FieldProblem, Forbidden, InputInvalid, NotFound, Unauthorized
from core.identifiers import new_id

logger = logging.getLogger(__name__)
PATH = re.compile(r"/v1/models/(?P<one>[^/]+)/predict|/v2/models/(?P<two>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
PREDICT_ROUTE = "/v1/models/{name}/predict"
INFER_ROUTE = "/v2/models/{name}/infer"
Address = tuple[str, Wanted]


class HotPath:
    def __init__(self, app: ASGIApp, maximum_body_bytes: int, meters: Meters) -> None:
        self._app = app
        self._maximum_body_bytes = maximum_body_bytes
        self._meters = meters
        self._prefix = new_id("req")
        self._numbers = count()
        self._counters: dict[tuple[str, int], Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith(("/predict", "/infer")):
            await self._app(scope, receive, send)
            return
        match = PATH.fullmatch(scope["path"])
        if match is None:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter_ns()
        route = INFER_ROUTE if match["two"] else PREDICT_ROUTE
        request_id = f"{self._prefix}{next(self._numbers):x}"
        scope["state"]["request_id"] = request_id
        try:
            status, headers, body = await self._answer(scope, receive, match, began)
        except asyncio.CancelledError:
            return  # the client is gone, and its rows were taken out of the queue
        except EvenkeelError as error:
            status, headers, body = _told(our_problem(Request(scope), error))
        except Exception:
            logger.exception("request %s failed: %s", request_id, scope["path"])
            status, headers, body = _told(unexpected(Request(scope)))
        headers = [
            *headers,
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._count(route, status, time.perf_counter_ns() - began)

    async def _answer(
        self, scope: Scope, receive: Receive, match: re.Match[str], began: int
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        resources: Resources = scope["state"]["resources"]
        headers = dict(scope["headers"])
        caller = await _caller(resources, headers.get(b"authorization"))
        if "models:infer" not in caller.scopes:
            raise Forbidden("this key lacks the scope models:infer: use one that has it")
        wanted = _wanted(match.string, scope["query_string"])
        if wanted.tenant_id != caller.tenant_id:
            wanted = replace(wanted, tenant_id=caller.tenant_id)
        resolver = resources.resolver
        lane = resolver.known(wanted) or await resolver.find(wanted)
        resources.engine.batcher.admit(lane, 1)
        body = await body_of(receive, headers, self._maximum_body_bytes)
        answering: Answering = resources.answering
        timing = Timing(began, time.perf_counter_ns())
        if match["two"]:
            content, media, header_size = await answering.infer(lane, body, headers, receive, timing)
        else:
            content, media, header_size = await answering.predict(lane, body, headers, receive, timing)
        told = [(b"content-type", media), *lane.headers]
        if header_size is not None:
            told.append((b"inference-header-content-length", b"%d" % header_size))
        return 200, told, content

    def _count(self, route: str, status: int, nanoseconds: int) -> None:
        counters = self._counters.get((route, status))
        if counters is None:
            meters = self._meters
            counters = meters.requests.labels("POST", route, str(status)), meters.latency.labels("POST", route)
            self._counters[route, status] = counters
        counters[0].inc()
        counters[1].observe(nanoseconds / 1e9)


async def _caller(resources: Resources, authorization: bytes | None) -> Caller:
    if authorization is None or authorization[:7].lower() != b"bearer ":
        raise Unauthorized("this needs an API key: send `Authorization: Bearer ek_…`")
    text = authorization[7:].decode("latin-1").strip()
    return resources.keys.get(text) or await resources.keys.find(text)


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
    given = dict(parse_qsl(query.decode("latin-1")))
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


def _told(response: Any) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    headers = [(name, value) for name, value in response.raw_headers if name != b"content-length"]
    return response.status_code, headers, response.body
