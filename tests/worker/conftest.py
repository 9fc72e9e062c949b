"""A node of one slot on a real database, and a tenant that submits to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.artifacts import ArtifactStore
from core.db import Database
from core.queries import keys
from core.settings import Settings
from tests.worker.bench import TENANT, Bench
from worker.node import Node


@pytest.fixture
def settings(tmp_path: Path, sqlite_url: str) -> Settings:
    return Settings(
        home=tmp_path,
        database_url=sqlite_url,
        lease_seconds=20,
        tick_seconds=0.05,
        reaper_seconds=0.1,
        stall_seconds=30,
    )


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    database = Database(settings.resolved_database_url)
    with database.write() as connection:
        connection.execute(keys.create_tenant(TENANT, "default"))
    bench = Bench(Node("node_1", settings, database, ArtifactStore(settings.resolved_artifact_url), 0))
    yield bench
    bench.stop()
    database.close()
