"""Requests that were let through a moment ago: key and address checked, version known.

The same key on the same address within GRANT_SECONDS is let through by one look into a dictionary. It adds so much
to what `keycache` and `resolution` promise, and whatever this process changes itself counts at once.
"""

import asyncio

from api.inference.resolution import Resolver, Route, Wanted
from api.keycache import KeyCache
from core.errors import Forbidden, Unauthorized

GRANT_SECONDS = 0.05
Asked = tuple[bytes, str, bytes]
"""(authorization header, path, query) as they came. They leave memory with the next tick, as keys are secrets."""


class Grants:
    """Belongs to the event loop; only `withdraw` may be called from other threads."""

    def __init__(self, keys: KeyCache, resolver: Resolver) -> None:
        self._keys = keys
        self._resolver = resolver
        self._given: dict[Asked, Route] = {}
        self._withdrawn = 0

    def known(self, asked: Asked) -> Route | None:
        route = self._given.get(asked)
        return route if route is not None and route.lane.alive else None

    async def ask(self, asked: Asked, wanted: Wanted) -> Route:
        """Who answers; `wanted` is for no tenant yet.

        Raises Unauthorized, Forbidden, NotFound, Unavailable.
        """
        withdrawn = self._withdrawn
        authorization = asked[0]
        if authorization[:7].lower() != b"bearer ":
            raise Unauthorized("this needs an API key: send `Authorization: Bearer ek_…`")
        caller = await self._keys.find(authorization[7:].decode("latin-1").strip())
        if "models:infer" not in caller.scopes:
            raise Forbidden("this key lacks the scope models:infer: use one that has it")
        route = await self._resolver.route(wanted._replace(tenant_id=caller.tenant_id))
        if withdrawn == self._withdrawn:
            if not self._given:
                asyncio.get_running_loop().call_later(GRANT_SECONDS, self._given.clear)
            self._given[asked] = route
        return route

    def withdraw(self) -> None:
        """A key or an alias was changed: everything is checked again."""
        self._withdrawn += 1
        self._given.clear()
