from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.service import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`evenkeel up` on a fresh home, shared by the tests of a file."""
    service = Service(tmp_path_factory.mktemp("acceptance") / "home")
    service.start()
    yield service
    assert service.stop() == 0


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    """One that a test may kill."""
    service = Service(tmp_path / "home")
    service.start()
    yield service
    service.stop()
