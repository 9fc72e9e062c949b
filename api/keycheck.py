"""A key's text checked against the database."""

import time
from contextlib import suppress

from api.keycache import Caller
from core.clock import MICROSECONDS
from core.credentials import matches, split
from core.db import Database
from core.errors import Unauthorized, Unavailable
from core.queries import keys

TOUCH_SECONDS = 60.0
"""`last_used_at` is only as fine as this, so that reading costs no write."""


def checked(database: Database, text: str) -> Caller:
    """The caller that a key stands for. Raises Unauthorized."""
    parts = split(text) if text.isascii() else None
    if parts is None:
        raise Unauthorized("this is no key of ours: a key looks like `ek_…_…`")
    key_id, secret = parts
    with database.read() as connection:
        row = connection.execute(keys.active(key_id)).one_or_none()
    if row is None or not matches(secret, row.secret_sha256):
        raise Unauthorized("this key is unknown, wrong, expired or revoked")
    if row.last_used_at is None or time.time() - row.last_used_at / MICROSECONDS > TOUCH_SECONDS:
        with suppress(Unavailable), database.write() as connection:
            connection.execute(keys.touch(key_id))
    return Caller(row.tenant_id, row.id, frozenset(row.scopes))
