"""Every scenario on two stacks: one machine (SQLite, local worker), and the cluster's (Postgres, Valkey, Celery)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.cluster import serving
from tests.acceptance.service import Service
from tests.servers import Valkey, fresh_database

Settings = Callable[[], AbstractContextManager[dict[str, str]]]


@contextmanager
def one_machine() -> Iterator[dict[str, str]]:
    yield {}


@pytest.fixture(scope="module", params=["one machine", "cluster"])
def stack(request: pytest.FixtureRequest) -> Settings:
    """What a service needs in its environment to run on this stack; each gets a database of its own."""
    if request.param == "one machine":
        return one_machine
    postgres: str = request.getfixturevalue("postgres_server")
    broker_url: Callable[[], str] = request.getfixturevalue("broker_url")

    @contextmanager
    def cluster() -> Iterator[dict[str, str]]:
        with fresh_database(postgres) as url:
            yield {"EVENKEEL_DATABASE_URL": url, "EVENKEEL_BROKER_URL": broker_url()}

    return cluster


@pytest.fixture(scope="module")
def service(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`evenkeel up` on a fresh home, shared by the tests of a file."""
    with stack() as settings:
        service = Service(tmp_path_factory.mktemp("acceptance") / "home", settings)
        service.start()
        yield service
        assert service.stop() == 0


@pytest.fixture
def own_service(stack: Settings, tmp_path: Path) -> Iterator[Service]:
    """One that a test may kill."""
    with stack() as settings:
        service = Service(tmp_path / "home", settings)
        service.start()
        yield service
        service.stop()


@pytest.fixture
def broker() -> Iterator[Valkey]:
    """One that a test may stop."""
    server = Valkey()
    server.start()
    yield server
    server.close()


@pytest.fixture
def database_url(postgres_server: str) -> Iterator[str]:
    with fresh_database(postgres_server) as url:
        yield url


@pytest.fixture
def cluster(broker: Valkey, database_url: str, tmp_path: Path) -> Iterator[Service]:
    settings = {"EVENKEEL_DATABASE_URL": database_url, "EVENKEEL_BROKER_URL": broker.url}
    with serving(tmp_path / "home", settings) as service:
        yield service
