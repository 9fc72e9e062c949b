"""The body of a request as it arrives: counted, and unpacked no further than its bound."""

import zlib

from starlette.types import Message, Receive

from core.errors import Malformed, TooLarge, UnsupportedMedia

WINDOW_BITS = {b"gzip": 31, b"deflate": 15}
Headers = dict[bytes, bytes]


async def body_of(receive: Receive, headers: Headers, maximum_bytes: int, first: Message | None = None) -> bytes:
    """The whole body, unpacked; `first` was received of it already.

    Raises TooLarge, Malformed, UnsupportedMedia.
    """
    stated = headers.get(b"content-length")
    if stated is not None and stated.isdigit() and int(stated[:20]) > maximum_bytes:
        raise _too_large(maximum_bytes)
    message = first or await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts = [body]
        size = len(body)
        while message.get("more_body", False):
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > maximum_bytes:
                raise _too_large(maximum_bytes)
        body = b"".join(parts)
    if len(body) > maximum_bytes:
        raise _too_large(maximum_bytes)
    encoding = headers.get(b"content-encoding")
    return body if encoding is None else unpacked(body, encoding, maximum_bytes)


def unpacked(body: bytes, encoding: bytes, maximum_bytes: int) -> bytes:
    """Never more than the bound is unpacked, however much is packed."""
    name = encoding.strip().lower()
    if name == b"identity":
        return body
    bits = WINDOW_BITS.get(name)
    if bits is None:
        raise UnsupportedMedia("Content-Encoding is not read here: send gzip, deflate, or the body as it is")
    reader = zlib.decompressobj(bits)
    try:
        content = reader.decompress(body, maximum_bytes + 1)
    except zlib.error as error:
        raise Malformed(f"the body is no {name.decode()}: {error}") from None
    if len(content) > maximum_bytes:
        raise _too_large(maximum_bytes)
    if not reader.eof or reader.unused_data:
        raise Malformed(f"the body is cut off, or more follows: it is no whole {name.decode()}")
    return content


def _too_large(maximum_bytes: int) -> TooLarge:
    return TooLarge(
        f"the body is larger than {maximum_bytes} bytes: send it in parts, or raise EVENKEEL_MAXIMUM_BODY_BYTES"
    )
