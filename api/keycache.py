"""Keys that were checked a moment ago. Short-lived, so that a revoked key stops within seconds everywhere."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from anyio.to_thread import run_sync

from api.remembered import Remembered

SECONDS = 4.9
"""With what `inference.grants` adds, a key that another process revoked is refused within 5 s."""
AGAIN_SECONDS = 2.0
"""From this age on a key in use is checked again, beside its requests: none of them waits for the database."""


@dataclass(frozen=True)
class Caller:
    """Who asks: taken from the key, never from the request."""

    tenant_id: str
    key_id: str
    scopes: frozenset[str]


class KeyCache:
    """By the digest of the key's text, so that no secret stays in memory longer than a look-up takes."""

    def __init__(
        self, look_up: Callable[[str], Caller], again_seconds: float = AGAIN_SECONDS, seconds: float = SECONDS
    ) -> None:
        self._look_up = look_up
        self._callers: Remembered[bytes, Caller] = Remembered(again_seconds, seconds)

    def get(self, text: str) -> Caller | None:
        """The caller, when the key was checked a moment ago."""
        return self._callers.get(_digest(text), lambda: run_sync(self._look_up, text))

    async def find(self, text: str) -> Caller:
        """The caller. Raises what `look_up` raises: Unauthorized, Unavailable."""
        return await self._callers.fetch(_digest(text), lambda: run_sync(self._look_up, text))

    def forget(self, key_id: str) -> None:
        """A key revoked through this process ends at once."""
        self._callers.forget(lambda caller: caller.key_id == key_id)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
