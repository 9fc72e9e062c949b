"""Who may do what: bearer keys, their scopes, and the tenant that they stand for."""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.keycache import Caller
from api.resources import Held, Resources
from core.clock import MICROSECONDS
from core.credentials import Scope, matches, split
from core.errors import Forbidden, Unauthorized, Unavailable
from core.queries import keys

TOUCH_SECONDS = 60.0
"""`last_used_at` is only as fine as this, so that reading costs no write."""

bearer = HTTPBearer(auto_error=False, description="An API key, `ek_…`")
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


async def authenticate(credentials: Bearer, resources: Held) -> Caller:
    """The caller of a request. Holds no database connection once it has answered.

    Raises Unauthorized when the key is missing, unknown, wrong, expired or revoked.
    """
    if credentials is None:
        raise Unauthorized("this needs an API key: send `Authorization: Bearer ek_…`")
    text = credentials.credentials
    caller = resources.keys.get(text)
    if caller is None:
        caller = await run_sync(_look_up, resources, text)
        resources.keys.put(text, caller)
    return caller


Authenticated = Annotated[Caller, Depends(authenticate)]


def needs(scope: Scope) -> Callable[[Caller], Awaitable[Caller]]:
    """A dependency that lets callers with `scope` through, and raises Forbidden for others."""

    async def caller_with_scope(caller: Authenticated) -> Caller:
        if scope not in caller.scopes:
            raise Forbidden(f"this key lacks the scope {scope}: use one that has it")
        return caller

    return caller_with_scope


JobReader = Annotated[Caller, Depends(needs("jobs:read"))]
JobWriter = Annotated[Caller, Depends(needs("jobs:write"))]
ModelReader = Annotated[Caller, Depends(needs("models:read"))]
ModelWriter = Annotated[Caller, Depends(needs("models:write"))]
Predictor = Annotated[Caller, Depends(needs("models:infer"))]
KeyWriter = Annotated[Caller, Depends(needs("keys:write"))]


def _look_up(resources: Resources, text: str) -> Caller:
    parts = split(text) if text.isascii() else None
    if parts is None:
        raise Unauthorized("this is no key of ours: a key looks like `ek_…_…`")
    key_id, secret = parts
    with resources.database.read() as connection:
        row = connection.execute(keys.active(key_id)).one_or_none()
    if row is None or not matches(secret, row.secret_sha256):
        raise Unauthorized("this key is unknown, wrong, expired or revoked")
    if row.last_used_at is None or time.time() - row.last_used_at / MICROSECONDS > TOUCH_SECONDS:
        with suppress(Unavailable), resources.database.write() as connection:
            connection.execute(keys.touch(key_id))
    return Caller(row.tenant_id, row.id, frozenset(row.scopes))
