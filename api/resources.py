"""What a running interface holds: opened when it starts, closed when it ends, handed to routes by type."""

from dataclasses import dataclass
from typing import Annotated, TypedDict, cast

from fastapi import Depends, Request

from api.inference.engine import Engine
from api.keycache import KeyCache
from api.meters import Meters
from api.streaming import Streams
from core.artifacts import ArtifactStore
from core.db import Database, open_database
from core.settings import Settings


@dataclass(frozen=True)
class Resources:
    settings: Settings
    database: Database
    artifacts: ArtifactStore
    engine: Engine
    streams: Streams
    keys: KeyCache
    meters: Meters


class LifespanState(TypedDict):
    resources: Resources


def open_resources(settings: Settings, meters: Meters) -> Resources:
    database = open_database(settings)
    artifacts = ArtifactStore(
        settings.resolved_artifact_url, settings.artifact_cache_dir, settings.artifact_cache_bytes
    )
    return Resources(
        settings=settings,
        database=database,
        artifacts=artifacts,
        engine=Engine(artifacts, settings.model_memory_bytes),
        streams=Streams(database, meters),
        keys=KeyCache(),
        meters=meters,
    )


def close_resources(resources: Resources) -> None:
    resources.streams.close()
    resources.engine.close()
    resources.artifacts.close()
    resources.database.close()


async def _resources(request: Request) -> Resources:
    return cast(Resources, request.state["resources"])


Held = Annotated[Resources, Depends(_resources)]
