"""Replies are packed (gzip, deflate) where the client reads that and they are long enough to gain by it."""

import asyncio
import zlib
from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.inference.bodies import WINDOW_BITS

LEAST_BYTES = 4096
"""A shorter reply fits into a few packets as it is."""
BESIDE_BYTES = 256 * 1024
"""A longer one is packed in a thread, so that it holds nobody up."""
LEVEL = 1
PACKABLE = (b"application/json", b"application/problem+json", b"application/octet-stream", b"text/", b"image/svg")
Headers = list[tuple[bytes, bytes]]


@lru_cache(256)
def encoding_of(accepted: bytes) -> bytes | None:
    """The encoding to answer with, out of an `Accept-Encoding`; None: as it is."""
    best: tuple[float, bytes] | None = None
    for item in accepted.lower().split(b","):
        name, _, parameters = item.partition(b";")
        name = b"gzip" if name.strip() in (b"*", b"x-gzip") else name.strip()
        quality = _quality(parameters)
        if name in WINDOW_BITS and quality > 0.0 and (best is None or quality > best[0]):
            best = quality, name
    return best[1] if best else None


def _quality(parameters: bytes) -> float:
    name, _, value = parameters.partition(b"=")
    try:
        return float(value) if name.strip() == b"q" else 1.0
    except ValueError:
        return 0.0


def gains(accepted: bytes | None, values: int) -> bool:
    """Whether a reply with so many numbers will be packed."""
    return values * 4 >= LEAST_BYTES and accepted is not None and encoding_of(accepted) is not None


async def packed(body: bytes, accepted: bytes | None) -> tuple[bytes, Headers]:
    """The body to send, with the headers that say how it is packed."""
    encoding = encoding_of(accepted) if accepted and len(body) >= LEAST_BYTES else None
    if encoding is None:
        return body, []
    if len(body) >= BESIDE_BYTES:
        content = await asyncio.get_running_loop().run_in_executor(None, _pack, body, encoding)
    else:
        content = _pack(body, encoding)
    return content, [(b"content-encoding", encoding), (b"vary", b"accept-encoding")]


def _pack(body: bytes, encoding: bytes) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, WINDOW_BITS[encoding])
    return packer.compress(body) + packer.flush()


class Packing:
    """Packs replies that are whole: streams pass, and so do files, whose `ETag` is that of their bytes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = dict(scope["headers"]).get(b"accept-encoding") if scope["type"] == "http" else None
        if accepted is None or encoding_of(accepted) is None:
            await self._app(scope, receive, send)
            return
        start: Message | None = None

        async def send_packed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_packable(message):
                start = message
                return
            if start is not None and message["type"] == "http.response.body":
                if not message.get("more_body", False):
                    start, message = await _whole(start, message, accepted)
                await send(start)
                start = None
            await send(message)

        await self._app(scope, receive, send_packed)


def _is_packable(start: Message) -> bool:
    headers = dict(start["headers"])
    media = headers.get(b"content-type", b"")
    return media.startswith(PACKABLE) and b"etag" not in headers and b"content-encoding" not in headers


async def _whole(start: Message, message: Message, accepted: bytes) -> tuple[Message, Message]:
    body, told = await packed(message.get("body", b""), accepted)
    if not told:
        return start, message
    headers = [item for item in start["headers"] if item[0] != b"content-length"]
    length = (b"content-length", b"%d" % len(body))
    return {**start, "headers": [*headers, length, *told]}, {**message, "body": body}
