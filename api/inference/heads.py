"""The head of a request that a connection sends again and again: parsed once, and known by its bytes.

A client that keeps its connection says the same before every body, but for the length of it. What was parsed and let
through once needs no second look: the rest of the request is its length and its body. uvicorn keeps the headers of the
last request as long; whether its key still holds is asked anew each time.
"""

import re
from typing import NamedTuple

from api.inference.grants import Asked

BLANK = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)(?=\r\n)", re.IGNORECASE)
DIGITS = 9
Headers = dict[bytes, bytes]


class KnownHead(NamedTuple):
    """The bytes up to the length and after it, and what they say."""

    before: bytes
    after: bytes
    asked: Asked
    headers: Headers
    infer: bool

    def body(self, data: bytes) -> bytes | None:
        """The body, when `data` is one whole request with this head."""
        start = len(self.before)
        end = data.find(b"\r", start, start + DIGITS + 1)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self.before) or not data.startswith(self.after, end):
            return None
        body = data[end + len(self.after) :]
        return body if int(digits) == len(body) else None


def known_head(data: bytes, size: int, asked: Asked, headers: Headers, infer: bool) -> KnownHead | None:
    """Of a request that was parsed from `data`, all of it, with a body of `size` bytes. None: it was not so plain."""
    length = len(data) - size
    if data.find(BLANK) != length - len(BLANK):
        return None
    head = data[:length]
    found = LENGTH.search(head)
    if found is None or int(found[1]) != size:
        return None
    return KnownHead(head[: found.start(1)], head[found.end(1) :], asked, headers, infer)
