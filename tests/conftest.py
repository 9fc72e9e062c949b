"""Real services for the tests: a migrated SQLite file, and a Postgres that the suite starts itself."""

import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.db import Database
from migrations.apply import upgrade
from tests.servers import Postgres, valkey_server

REDIS_DATABASES = 16
MNIST_FOLDER = Path(__file__).parent.parent.parent / "shared" / "data"


def pytest_configure() -> None:
    """A suite in the background of a shell, or under nohup, ignores signals, and so would all that it starts: what is
    ignored is inherited, what is handled is not."""
    for ignored in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(ignored) is signal.SIG_IGN:
            signal.signal(ignored, lambda *_: None)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of the person who runs it."""
    for name in [name for name in os.environ if name.startswith("EVENKEEL_") and "TEST" not in name]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "evenkeel.sqlite"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    shutil.copy(migrated_sqlite, tmp_path / "evenkeel.sqlite")
    return f"sqlite:///{tmp_path / 'evenkeel.sqlite'}"


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    yield database
    database.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a server that listens on a unix socket only."""
    given = os.environ.get("EVENKEEL_TEST_DATABASE_URL")
    if given:
        yield given
        return
    with Postgres() as server:
        yield server.url


@pytest.fixture(scope="session")
def broker_url() -> Iterator[Callable[[], str]]:
    """URLs of a broker that every test may use, and none may stop or empty: it may be somebody's. On the
    suite's own each URL is a database by itself, so that no worker takes bells of another service."""
    given = os.environ.get("EVENKEEL_TEST_BROKER_URL")
    if given:
        yield lambda: given
        return
    with valkey_server() as server:
        numbers = itertools.cycle(range(REDIS_DATABASES))
        yield lambda: f"{server.url.rpartition('/')[0]}/{next(numbers)}"
