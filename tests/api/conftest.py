"""A real application over a real migrated database, in this process or in one of its own."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.main import create_app
from core.artifacts import ArtifactStore
from core.db import Database
from core.settings import Settings
from tests.api.application import TestClient
from tests.api.bench import Tenant
from tests.api.live import Live, live_server
from tests.api.service import Service


@pytest.fixture
def settings(tmp_path: Path, sqlite_url: str) -> Settings:
    return Settings(home=tmp_path, database_url=sqlite_url, maximum_body_bytes=2_000_000, port=0)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), client=("127.0.0.1", 50000)) as client:
        yield client


@pytest.fixture
def store(settings: Settings) -> ArtifactStore:
    return ArtifactStore(settings.resolved_artifact_url)


@pytest.fixture
def tenant(database: Database) -> Tenant:
    return Tenant(database, "first")


@pytest.fixture
def stranger(database: Database) -> Tenant:
    return Tenant(database, "second")


@pytest.fixture
def service(settings: Settings, database: Database, client: TestClient, tenant: Tenant) -> Service:
    return Service(settings, database, client, tenant)


@pytest.fixture
def live(settings: Settings) -> Iterator[Live]:
    with live_server(settings) as running:
        yield running


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
