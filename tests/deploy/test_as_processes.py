"""The commands of docker-compose.yml do run, in their order, with their environment and health checks."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.credentials import mint
from core.tables import SCHEMA_HEAD
from evenkeel import Client
from tests.servers import fresh_database

pytestmark = pytest.mark.timeout(300)  # whole services on a machine that may be busy

ROOT = Path(__file__).parent.parent.parent
SPEC = {
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [16]},
    "batch_norm": True,
    "training": {"steps": 40, "batch_size": 32},
}


@pytest.fixture
def database_url(postgres_server: str) -> Iterator[str]:
    with fresh_database(postgres_server) as url:
        yield url


@pytest.fixture
def stack(database_url: str, broker_url: Callable[[], str], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    script = str(ROOT / "deploy" / "as_processes.py")
    urls = ["--database-url", database_url, "--broker-url", broker_url()]
    process = subprocess.Popen(
        [sys.executable, script, *urls, "--folder", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(90, process.terminate)  # a stack that never gets ready fails the test, in time
    guard.start()
    yield process
    guard.cancel()
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def ready_addresses(stack: subprocess.Popen[str]) -> list[str]:
    assert stack.stdout is not None
    for line in stack.stdout:
        if line.startswith("ready "):
            return line.split()[1:]
    raise AssertionError(f"it ended with {stack.wait()} before it was ready")


def test_a_job_runs_through_each_api_of_the_compose_file(stack: subprocess.Popen[str], tmp_path: Path) -> None:
    first, second = ready_addresses(stack)
    key = (tmp_path / "secrets" / "admin_key").read_text().strip()

    for here, there in ((first, second), (second, first)):
        with Client(url=here, api_key=key) as client, Client(url=there, api_key=key) as other:
            job = client.wait(client.submit(SPEC))

            assert job.status == "succeeded", job.error
            assert other.job(job.id).status == "succeeded"
            assert len(other.predict("digits-mlp", [[0.0] * 64]).labels) == 1

    stack.send_signal(signal.SIGTERM)
    assert stack.wait(30) == 0


def test_two_migrations_that_start_at_once_both_succeed(database_url: str, tmp_path: Path) -> None:
    secrets = {"database_url": database_url, "admin_key": mint().text}
    for name, text in secrets.items():
        (tmp_path / name).write_text(text)
    environment = os.environ | {f"EVENKEEL_{name.upper()}_FILE": str(tmp_path / name) for name in secrets}
    evenkeel = str(Path(sys.executable).with_name("evenkeel"))

    both = [
        subprocess.Popen(
            [evenkeel, "migrate", "--home", str(tmp_path / f"home-{number}")],
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]

    printed = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert all(f"at revision {SCHEMA_HEAD}" in text and secrets["admin_key"] not in text for text in printed)
