"""What a running interface holds: opened when it starts, closed when it ends, handed to routes by type."""

from dataclasses import dataclass
from typing import Annotated, TypedDict, cast

from fastapi import Depends, Request

from api.inference.answering import Answering
from api.inference.collecting import EngineCollector
from api.inference.engine import Engine, Watch
from api.inference.grants import Grants
from api.inference.resolution import Resolver
from api.keycache import KeyCache
from api.keycheck import checked
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
    resolver: Resolver
    grants: Grants
    answering: Answering
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
    engine = Engine(
        artifacts,
        settings.model_memory_bytes,
        settings.predict_queue_rows,
        settings.predict_threads,
        Watch(settings.drift_share, settings.drift_layers_share, settings.drift_threshold),
    )
    resolver = Resolver(database, engine)
    keys = KeyCache(lambda text: checked(database, text))
    meters.registry.register(EngineCollector(engine))
    return Resources(
        settings=settings,
        database=database,
        artifacts=artifacts,
        engine=engine,
        resolver=resolver,
        grants=Grants(keys, resolver),
        answering=Answering(engine.batcher, settings.maximum_predict_rows, settings.predict_seconds),
        streams=Streams(database, meters),
        keys=keys,
        meters=meters,
    )


def close_resources(resources: Resources) -> None:
    resources.streams.close()
    resources.resolver.close()
    resources.answering.close()
    resources.engine.close()
    resources.artifacts.close()
    resources.database.close()


async def _resources(request: Request) -> Resources:
    return cast(Resources, request.state["resources"])


Held = Annotated[Resources, Depends(_resources)]
