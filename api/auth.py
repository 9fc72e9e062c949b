"""Who may do what: bearer keys, their scopes, and the tenant that they stand for."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.keycache import Caller
from api.resources import Held
from core.credentials import Scope
from core.errors import Forbidden, Unauthorized

bearer = HTTPBearer(auto_error=False, description="An API key, `ek_…`")
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


async def authenticate(credentials: Bearer, resources: Held) -> Caller:
    """The caller of a request. Holds no database connection once it has answered.

    Raises Unauthorized when the key is missing, unknown, wrong, expired or revoked.
    """
    if credentials is None:
        raise Unauthorized("this needs an API key: send `Authorization: Bearer ek_…`")
    return await resources.keys.find(credentials.credentials)


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
