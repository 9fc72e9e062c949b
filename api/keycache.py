"""Keys that were checked a moment ago. Short-lived, so that a revoked key stops within seconds everywhere."""

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

SECONDS = 5.0
ENTRIES = 4096


@dataclass(frozen=True)
class Caller:
    """Who asks: taken from the key, never from the request."""

    tenant_id: str
    key_id: str
    scopes: frozenset[str]


class KeyCache:
    """By the digest of the key's text, so that no secret stays in memory."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._entries: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._lock = Lock()

    def get(self, text: str) -> Caller | None:
        with self._lock:
            until, caller = self._entries.get(_digest(text), (0.0, None))
        return caller if time.monotonic() < until else None

    def put(self, text: str, caller: Caller) -> None:
        with self._lock:
            self._entries[_digest(text)] = (time.monotonic() + self._seconds, caller)
            self._entries.move_to_end(_digest(text))
            if len(self._entries) > ENTRIES:
                self._entries.popitem(last=False)

    def forget(self, key_id: str) -> None:
        """A key revoked through this process ends at once."""
        with self._lock:
            for digest in [digest for digest, (_, caller) in self._entries.items() if caller.key_id == key_id]:
                del self._entries[digest]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
