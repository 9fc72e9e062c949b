"""Which version answers: a name with a version or an alias, resolved in the database, remembered for a moment.

A moved alias counts at once in the process that moved it, and in every other within ROUTE_SECONDS, or as soon
as the new version is loaded and warm where that takes longer; until then the old one answers.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import random
from typing import Any, NamedTuple

from api.inference.engine import Engine, Found
from api.inference.lanes import Lane
from api.models import resolve
from api.remembered import Remembered
from core.db import Database
from core.queries import models

ROUTE_SECONDS = 1.0
"""How old the answer of the database may be."""
AGAIN_SECONDS = 0.25
"""From this age on it is asked again, beside the requests."""
LOOK_UP_THREADS = 2


class Wanted(NamedTuple):
    """What a request names. Neither version nor alias: `latest`, or else the newest."""

    tenant_id: str
    name: str
    version: int | None = None
    alias: str | None = None


@dataclass(frozen=True, eq=False)
class Route:
    """The version that answers, one that answers a share of the requests in its place, and one that gets copies."""

    model_id: str
    lane: Lane
    canary: Lane | None = None
    weight: float = 0.0
    shadow: Lane | None = None

    @property
    def alive(self) -> bool:
        return all(lane is None or lane.alive for lane in (self.lane, self.canary, self.shadow))

    def pick(self) -> Lane:
        """Who answers the next request."""
        return self.lane if self.canary is None or random() >= self.weight else self.canary


class Resolver:
    def __init__(self, database: Database, engine: Engine) -> None:
        self._database = database
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(LOOK_UP_THREADS, thread_name_prefix="resolve")
        self._routes: Remembered[Wanted, Route] = Remembered(AGAIN_SECONDS, ROUTE_SECONDS)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def route(self, wanted: Wanted) -> Route:
        """Who answers, loaded where that is not so. Raises NotFound, Unavailable."""
        route = self._routes.get(wanted, lambda: self._look_up(wanted))
        if route is None or not route.alive:
            self._routes.forget(lambda route: not route.alive)
            route = await self._routes.fetch(wanted, lambda: self._look_up(wanted))
        for lane in (route.lane, route.canary, route.shadow):
            if lane is not None:
                self._engine.loaded(lane.key)
        return route

    async def find(self, wanted: Wanted) -> Lane:
        """The version that a name stands for, canary or not."""
        return (await self.route(wanted)).lane

    def preload(self, wanted: Wanted) -> None:
        """Loads a version and warms it up; from any thread but the loop's. Raises NotFound, Unavailable."""
        asyncio.run_coroutine_threadsafe(self.find(wanted), self._loop).result()

    def moved(self, model_id: str) -> None:
        """An alias of this model is another's now; from any thread."""
        self._routes.forget(lambda route: route.model_id == model_id)

    async def _look_up(self, wanted: Wanted) -> Route:
        loop = asyncio.get_running_loop()
        found, card = await loop.run_in_executor(self._threads, self._read, wanted)
        lane = await self._lane(wanted, found, card)
        if wanted.version is not None or (found.canary_version is None and found.shadow_version is None):
            return Route(found.model_id, lane)
        canary, shadow = [
            None if number is None else await self.find(wanted._replace(version=number, alias=None))
            for number in (found.canary_version, found.shadow_version)
        ]
        return Route(found.model_id, lane, canary, found.canary_weight or 0.0, shadow)

    async def _lane(self, wanted: Wanted, found: Any, card: dict[str, Any] | None) -> Lane:
        key = (found.model_id, found.version)
        lane = self._engine.loaded(key)
        if lane is not None:
            return lane
        self._routes.hold(wanted)
        if card is None:  # it left memory while the database was asked
            loop = asyncio.get_running_loop()
            card = await loop.run_in_executor(self._threads, self._card, key)
        of_version = Found(wanted.name, found.artifacts, found.statistics_sha256, found.weights_sha256)
        return await self._engine.load(key, of_version, card)

    def _read(self, wanted: Wanted) -> tuple[Any, dict[str, Any] | None]:
        """The version, and its card where it has to be loaded; no connection is held while a file is read."""
        with self._database.read() as connection:
            found = resolve(connection, wanted.tenant_id, wanted.name, wanted.version, wanted.alias)
            key = (found.model_id, found.version)
            if self._engine.holds(key):
                return found, None
            return found, connection.execute(models.card(*key)).scalar_one()

    def _card(self, key: tuple[str, int]) -> dict[str, Any]:
        with self._database.read() as connection:
            card: dict[str, Any] = connection.execute(models.card(*key)).scalar_one()
        return card
