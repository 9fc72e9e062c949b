"""What a broker, a database server or a second worker may do to jobs: nothing."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from core.queue import BELL, queue_for, send
from tests.acceptance.cluster import LONG, TINY, another_worker, ran_once_each, same_as, serving, submit_many
from tests.acceptance.service import Service, recorded_points, wait_until
from tests.servers import Postgres, Valkey, fresh_database

pytestmark = pytest.mark.timeout(300)  # whole services on a machine that may be busy

WIDE = LONG | {"network": {"family": "mlp", "hidden": [256, 256], "dropout": 0.1}}


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


def test_a_hundred_copies_of_one_bell_make_one_attempt(cluster: Service, broker: Valkey, tmp_path: Path) -> None:
    client = cluster.client()

    with another_worker(cluster, tmp_path / "second"):
        wait_until(lambda: len(client.nodes()) == 2)
        job = client.submit(TINY)
        for _ in range(100):
            assert send(broker.url, BELL, queue_for(needs_cuda=False))
        ran_once_each(client, [job.id])


def test_without_a_broker_jobs_are_accepted_and_begin_within_ten_seconds(cluster: Service, broker: Valkey) -> None:
    client = cluster.client()
    ran_once_each(client, submit_many(client, 1))

    broker.kill()
    ids = submit_many(client, 3)

    ran_once_each(client, ids)
    for job_id in ids:
        job = client.job(job_id)
        assert (job.started_at - job.created_at).total_seconds() < 10


def test_the_first_bell_after_the_return_of_a_broker_is_heard(
    broker: Valkey, database_url: str, tmp_path: Path
) -> None:
    """Nothing but a bell can tell this worker of a job."""
    settings = {"EVENKEEL_BROKER_URL": broker.url, "EVENKEEL_POLL_SECONDS": "600"}
    with serving(tmp_path / "home", settings | {"EVENKEEL_DATABASE_URL": database_url}) as service:
        client = service.client()
        ran_once_each(client, submit_many(client, 1))

        broker.kill()
        broker.start()

        ran_once_each(client, submit_many(client, 1))


@pytest.mark.parametrize(
    ("every_seconds", "steps"),
    [(0.5, 5), pytest.param(2.0, 3000, marks=[pytest.mark.slow, pytest.mark.timeout(400)])],
)
def test_a_broker_that_is_flushed_all_the_time_loses_no_job(
    cluster: Service, broker: Valkey, every_seconds: float, steps: int
) -> None:
    client = cluster.client()
    flushed = []

    with repeatedly(lambda: flushed.append(broker.command("FLUSHALL")), every_seconds):
        ids = submit_many(client, 50, steps)
        ran_once_each(client, ids)

    assert len(flushed) > 3
    assert set(flushed) == {b"+OK\r\n"}
    print(f"{len(flushed)} times FLUSHALL, every {every_seconds:g} s")


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
        wait_until(lambda: f"{job.id} is no longer ours" in cluster.log.read_text())

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
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("every_seconds", "times", "steps"), [(15.0, 3, 40_000), (3.0, 4, 15_000)])
def test_a_database_that_restarts_during_a_job_costs_it_nothing(
    broker: Valkey, tmp_path: Path, every_seconds: float, times: int, steps: int
) -> None:
    spec = WIDE | {"training": WIDE["training"] | {"steps": steps}}
    restarts: list[None] = []
    with Postgres() as server, fresh_database(server.url) as url:
        settings = {"EVENKEEL_DATABASE_URL": url, "EVENKEEL_BROKER_URL": broker.url, "EVENKEEL_LEASE_SECONDS": "60"}
        with serving(tmp_path / "home", settings) as service:
            client = service.client()
            golden = client.wait(client.submit(spec), 800)
            job = client.submit(spec)
            wait_until(lambda: client.job(job.id).progress.step > 0)

            with repeatedly(lambda: restarts.append(server.restart()), every_seconds):
                wait_until(lambda: len(restarts) >= times or client.job(job.id).terminal, 800)
                ended = client.wait(job.id, 800)

            print(f"{len(restarts)} restarts, one every {every_seconds:g} s: {ended.attempt} attempts")
            same_as(client, ended, golden)
    assert ended.attempt == 1, "the lease outlasts a restart"
    assert len(restarts) >= times
