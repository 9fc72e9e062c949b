"""API keys: `ek_<id>_<secret>`. Only the digest of the secret is stored; a long random secret needs no slow hash."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Literal, get_args

from core.identifiers import new_id

Scope = Literal["jobs:read", "jobs:write", "models:read", "models:write", "models:infer", "keys:write"]
ALL_SCOPES: tuple[Scope, ...] = get_args(Scope)
SECRET_BYTES = 32


@dataclass(frozen=True)
class MintedKey:
    """`text` is shown once, to its owner; the rest is stored."""

    id: str
    text: str
    secret_sha256: str


def mint() -> MintedKey:
    key_id = new_id("key")
    secret = secrets.token_hex(SECRET_BYTES)
    return MintedKey(key_id, f"ek_{key_id.removeprefix('key_')}_{secret}", _digest(secret))


def split(text: str) -> tuple[str, str] | None:
    """(key id, secret) of a key's text, or None when it can not be a key of ours."""
    parts = text.split("_")
    if len(parts) != 3 or parts[0] != "ek" or not parts[1].isalnum() or not parts[2].isalnum():
        return None
    return f"key_{parts[1]}", parts[2]


def restore(text: str) -> MintedKey | None:
    """The key of a text that was minted before, to store it again; None when it can not be one of ours."""
    parts = split(text)
    return None if parts is None else MintedKey(parts[0], text, _digest(parts[1]))


def matches(secret: str, secret_sha256: str) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(_digest(secret), secret_sha256)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
