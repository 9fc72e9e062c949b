"""What a broker, a database server or a second worker may do to jobs: nothing."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from core.queue import BELL, queue_for, send
from evenkeel import Client
from tests.acceptance.service import FAST, Service, recorded_points, wait_until
from tests.servers import Postgres, Valkey, fresh_database

TINY = {
    "dataset": {"source": "iris"},
    "network": {"family": "mlp", "hidden": [4]},
    "training": {"steps": 5, "batch_size": 16},
    "publish": None,
}
LONG = {
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [64, 64], "dropout": 0.1},
    "training": {"steps": 8000, "evaluate_every": 4000, "checkpoint_every": 400},
    "publish": None,
}


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
    service = Service(tmp_path / "home", {"EVENKEEL_DATABASE_URL": database_url, "EVENKEEL_BROKER_URL": broker.url})
    service.start()
    yield service
    service.stop()


@contextlib.contextmanager
def another_worker(service: Service, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A second node: the same database, broker and artifacts, another home."""
    environment = os.environ | FAST | service.settings
    environment |= {"EVENKEEL_HOME": str(home), "EVENKEEL_ARTIFACT_URL": str(service.home / "artifacts")}
    with home.with_suffix(".log").open("ab") as log:
        command = [str(Path(sys.executable).with_name("evenkeel")), "worker"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def repeatedly(action: Callable[[], object], every_seconds: float) -> Iterator[None]:
    """Does something again and again while the block runs."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every_seconds):
            action()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def submit_many(client: Client, count: int) -> list[str]:
    return [client.submit(TINY | {"training": TINY["training"] | {"seed": seed}}).id for seed in range(count)]


def ran_once_each(client: Client, ids: list[str]) -> None:
    for job_id in ids:
        job = client.wait(job_id, 120)
        assert (job.status, job.attempt) == ("succeeded", 1), job.error


def test_a_hundred_copies_of_one_bell_make_one_attempt(cluster: Service, broker: Valkey) -> None:
    client = cluster.client()
    job = client.submit(TINY)

    for _ in range(100):
        assert send(broker.url, BELL, queue_for(needs_cuda=False))

    ran_once_each(client, [job.id])


def test_without_a_broker_jobs_are_accepted_and_run_and_its_return_is_heard(cluster: Service, broker: Valkey) -> None:
    client = cluster.client()
    ran_once_each(client, submit_many(client, 1))

    broker.kill()
    ran_once_each(client, submit_many(client, 3))
    broker.start()

    ran_once_each(client, submit_many(client, 1))
    wait_until(lambda: bells_left(broker) == 0, 60)


def bells_left(broker: Valkey) -> int:
    """Messages that nobody has taken out of the queue."""
    return int(broker.command(f"LLEN {queue_for(needs_cuda=False)}").strip().removeprefix(b":"))


def test_a_broker_that_is_flushed_all_the_time_loses_no_job(cluster: Service, broker: Valkey) -> None:
    client = cluster.client()

    with repeatedly(lambda: broker.command("FLUSHALL"), 0.5):
        ids = submit_many(client, 50)
        ran_once_each(client, ids)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_broker_that_is_killed_twenty_times_loses_no_job(cluster: Service, broker: Valkey) -> None:
    client = cluster.client()
    ids = []

    for _ in range(20):
        ids += submit_many(client, 3)
        broker.kill()
        ids += submit_many(client, 2)
        broker.start()

    ran_once_each(client, ids)


def test_a_frozen_worker_that_wakes_after_its_lease_changes_nothing(cluster: Service, tmp_path: Path) -> None:
    client = cluster.client()
    golden = client.wait(client.submit(LONG), 120)
    job = client.submit(LONG)
    wait_until(lambda: client.job(job.id).progress.step > 0)
    frozen = [cluster.worker(), *cluster.worker().children(recursive=True)]

    for process in frozen:
        process.suspend()
    with another_worker(cluster, tmp_path / "second"):
        ended = client.wait(job.id, 120)
        events = client.events(job.id)
        for process in frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        wait_until(lambda: not cluster.has_trainer(job.id))

    assert (ended.status, ended.attempt) == ("succeeded", 2)
    assert ended.result["weights_sha256"] == golden.result["weights_sha256"]
    assert recorded_points(client, job.id) == recorded_points(client, golden.id)
    assert client.events(job.id) == events


def test_nodes_are_listed_with_their_slots_and_versions(cluster: Service, tmp_path: Path) -> None:
    client = cluster.client()

    with another_worker(cluster, tmp_path / "second"):
        wait_until(lambda: len(client.nodes()) == 2)

    for node in client.nodes():
        assert node["alive"]
        assert node["slots"] >= 1
        assert {"evenkeel", "torch", "python", "celery"} <= set(node["versions"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_database_that_restarts_during_a_job_costs_it_nothing(broker: Valkey, tmp_path: Path) -> None:
    with Postgres() as server, fresh_database(server.url) as url:
        service = Service(tmp_path / "home", {"EVENKEEL_DATABASE_URL": url, "EVENKEEL_BROKER_URL": broker.url})
        service.start()
        try:
            client = service.client()
            golden = client.wait(client.submit(LONG | {"training": LONG["training"] | {"steps": 30_000}}), 300)
            job = client.submit(LONG | {"training": LONG["training"] | {"steps": 30_000}})
            wait_until(lambda: client.job(job.id).progress.step > 0)

            for _ in range(3):
                server.restart()
                threading.Event().wait(2)
            ended = client.wait(job.id, 300)

            assert ended.status == "succeeded", ended.error
            assert ended.result["weights_sha256"] == golden.result["weights_sha256"]
            assert recorded_points(client, job.id) == recorded_points(client, golden.id)
        finally:
            service.stop()


def test_a_killed_worker_is_followed_by_another_node(cluster: Service, tmp_path: Path) -> None:
    client = cluster.client()
    golden = client.wait(client.submit(LONG), 120)

    with another_worker(cluster, tmp_path / "second") as second:
        wait_until(lambda: len(client.nodes()) == 2)
        job = client.submit(LONG)
        wait_until(lambda: client.job(job.id).progress.step > 0)
        os.kill(second.pid, signal.SIGKILL)
        ended = client.wait(job.id, 120)

    assert ended.status == "succeeded"
    assert ended.result["weights_sha256"] == golden.result["weights_sha256"]
    assert recorded_points(client, job.id) == recorded_points(client, golden.id)
