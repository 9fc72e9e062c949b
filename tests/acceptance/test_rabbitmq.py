"""RabbitMQ in the place of Valkey, where Debian's package is installed: bells, and a broker that falls over."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.queue import BELL, queue_for, send
from tests.acceptance.cluster import ran_once_each, serving, submit_many
from tests.acceptance.service import Service, wait_until
from tests.servers import free_port, fresh_database

FOLDER = Path("/usr/lib/rabbitmq/bin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not FOLDER.is_dir(), reason="no RabbitMQ: apt-get install rabbitmq-server"),
]
ENDLESS = {
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [16]},
    "training": {"steps": 1_000_000, "checkpoint_every": 1_000_000, "evaluate_every": 1_000_000},
    "publish": None,
}


class RabbitMQ:
    """A server of its own: name, folder and ports; without the package's service, and without its rights."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="evenkeel-rabbit-")
        self._process: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        home = self._folder.name
        self._environment = {
            "HOME": home,
            "PATH": os.environ["PATH"],
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_NODENAME": f"evenkeel{os.getpid()}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/plugins",
            "RABBITMQ_PID_FILE": f"{home}/pid",
        }

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}//"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(FOLDER / "rabbitmq-server")],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: self._control("await_startup").returncode == 0, 90)

    def stop(self) -> None:
        if self._process is not None:
            self._control("stop")
            self._process.wait(60)
            self._process = None

    def messages(self, queue: str) -> int:
        """Those that nobody has taken."""
        lines = self._control("list_queues", "name", "messages").stdout.decode().splitlines()
        return next((int(line.split()[1]) for line in lines if line.split()[:1] == [queue]), 0)

    def close(self) -> None:
        self.stop()
        subprocess.run(["epmd", "-kill"], env=self._environment, capture_output=True, check=False)
        self._folder.cleanup()

    def _control(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        command = [str(FOLDER / "rabbitmqctl"), "--quiet", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMQ]:
    server = RabbitMQ()
    server.start()
    yield server
    server.close()


@pytest.fixture
def patient(rabbit: RabbitMQ, postgres_server: str, tmp_path: Path) -> Iterator[Service]:
    """A worker that nothing but a bell can tell of a job."""
    with fresh_database(postgres_server) as url:
        settings = {"EVENKEEL_DATABASE_URL": url, "EVENKEEL_BROKER_URL": rabbit.url, "EVENKEEL_POLL_SECONDS": "600"}
        with serving(tmp_path / "home", settings) as service:
            yield service


@pytest.fixture
def polling(rabbit: RabbitMQ, postgres_server: str, tmp_path: Path) -> Iterator[Service]:
    with fresh_database(postgres_server) as url:
        settings = {"EVENKEEL_DATABASE_URL": url, "EVENKEEL_BROKER_URL": rabbit.url}
        with serving(tmp_path / "home", settings) as service:
            yield service


def checked(service: Service) -> int:
    command = [str(Path(sys.executable).with_name("evenkeel")), "worker", "--check", "--home", str(service.home)]
    return subprocess.run(command, env=os.environ | service.settings, capture_output=True, check=False).returncode


def test_jobs_begin_by_their_bells_and_a_running_one_is_cancelled(patient: Service) -> None:
    client = patient.client()
    ran_once_each(client, submit_many(client, 10))

    job = client.submit(ENDLESS)
    wait_until(lambda: client.job(job.id).progress.step > 0)
    client.cancel(job.id)

    assert client.wait(job.id, 30).status == "cancelled"


def test_a_hundred_copies_of_a_bell_make_one_attempt(rabbit: RabbitMQ, polling: Service) -> None:
    client = polling.client()
    job = client.submit(ENDLESS | {"training": ENDLESS["training"] | {"steps": 100}})

    for _ in range(100):
        assert send(rabbit.url, BELL, queue_for(needs_cuda=False))

    ran_once_each(client, [job.id])
    wait_until(lambda: rabbit.messages(queue_for(needs_cuda=False)) == 0)


def test_bells_that_nobody_hears_expire(rabbit: RabbitMQ) -> None:
    queue = "evenkeel.nobody"
    for _ in range(3):
        assert send(rabbit.url, BELL, queue)

    wait_until(lambda: rabbit.messages(queue) == 3, 20)
    wait_until(lambda: rabbit.messages(queue) == 0, 60)


def test_a_broker_that_stops_and_comes_back_costs_no_job_and_is_heard_again(rabbit: RabbitMQ, polling: Service) -> None:
    client = polling.client()
    ran_once_each(client, submit_many(client, 2))

    rabbit.stop()
    ids = submit_many(client, 3)
    ran_once_each(client, ids)
    for job_id in ids:
        job = client.job(job_id)
        assert (job.started_at - job.created_at).total_seconds() < 10
    rabbit.start()

    assert send(rabbit.url, BELL, queue_for(needs_cuda=False))
    wait_until(lambda: rabbit.messages(queue_for(needs_cuda=False)) == 0)
    ran_once_each(client, submit_many(client, 2))


def test_the_first_bell_after_the_return_of_the_broker_is_heard(rabbit: RabbitMQ, patient: Service) -> None:
    client = patient.client()
    ran_once_each(client, submit_many(client, 1))

    rabbit.stop()
    rabbit.start()

    ran_once_each(client, submit_many(client, 1))


def test_a_worker_that_consumes_passes_its_health_check(polling: Service) -> None:
    wait_until(lambda: checked(polling) == 0)
