"""A recalibration under its supervisor: killed, drained, paused and cancelled like any job."""

from pathlib import Path
from typing import Any

import pytest

from api.recalibration import prepared
from api.submission import submit
from core.artifacts import ArtifactStore
from core.db import Database
from core.queries import jobs, keys, layers, models
from core.settings import Settings
from migrations.apply import upgrade
from tests.servers import fresh_database
from tests.worker.bench import DIGITS, TENANT, Bench, trainer_of, wait_until
from worker.node import Node

BODY = {"dataset": {"source": "digits", "split_seed": 5}}
LARGE = DIGITS | {
    "name": "digits",
    "network": {"family": "mlp", "hidden": [1500, 1500, 1500]},
    "training": {"steps": 2, "batch_size": 32},
}


@pytest.fixture
def base(bench: Bench) -> str:
    """The job that made version 1: so wide that measuring it again takes a while."""
    job_id = bench.submit(LARGE)
    bench.run()
    assert bench.row(job_id).state == "succeeded", bench.row(job_id).error
    return job_id


def submitted(bench: Bench) -> str:
    row, _ = submit(bench.node.database, prepared(bench.node.database, TENANT, "digits", BODY, None))
    return str(row.id)


def versions(bench: Bench) -> list[Any]:
    with bench.node.database.read() as connection:
        model = connection.execute(models.by_name(TENANT, "digits")).one()
        return list(connection.execute(models.versions(model.id, 10, descending=False)).all())


def begun(bench: Bench, job_id: str) -> None:
    wait_until(lambda: bench.row(job_id).fingerprint)


def test_a_killed_trainer_is_followed_by_one_that_makes_the_version(bench: Bench, base: str) -> None:
    golden = submitted(bench)
    bench.run()
    job_id = submitted(bench)

    thread = bench.run_aside()
    begun(bench, job_id)
    trainer_of(job_id).kill()
    bench.finish(thread)
    bench.run()

    ended = bench.row(job_id)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    assert ended.result["statistics_sha256"] == bench.row(golden).result["statistics_sha256"]
    assert [row.version for row in versions(bench)] == [1, 2, 3]
    assert len({row.weights_sha256 for row in versions(bench)}) == 1
    assert [event.seq for event in bench.events(job_id)] == list(range(1, ended.next_seq))


@pytest.mark.parametrize("command", ["cancel", "pause"])
def test_a_running_recalibration_obeys(bench: Bench, base: str, command: str) -> None:
    job_id = submitted(bench)
    request = jobs.request_pause(TENANT, job_id) if command == "pause" else jobs.request_cancel(TENANT, job_id, False)

    thread = bench.run_aside()
    begun(bench, job_id)
    with bench.node.database.write() as connection:
        connection.execute(request)
    bench.finish(thread)

    assert bench.row(job_id).state == {"cancel": "cancelled", "pause": "paused"}[command]
    assert len(versions(bench)) == 1
    if command == "pause":
        with bench.node.database.write() as connection:
            connection.execute(jobs.resume(TENANT, job_id)).one()
        bench.run()
        assert bench.row(job_id).state == "succeeded"
        assert len(versions(bench)) == 2


def test_a_drained_worker_puts_it_back_and_the_next_one_does_it(bench: Bench, base: str) -> None:
    job_id = submitted(bench)

    thread = bench.run_aside()
    begun(bench, job_id)
    bench.node.draining.set()
    bench.finish(thread)
    bench.node.draining.clear()

    assert bench.row(job_id).state == "queued"
    bench.run()
    assert bench.row(job_id).state == "succeeded"


def test_on_postgres_too(postgres_server: str, tmp_path: Path) -> None:
    with fresh_database(postgres_server) as url:
        upgrade(url)
        settings = Settings(home=tmp_path, database_url=url, tick_seconds=0.05)
        database = Database(url)
        with database.write() as connection:
            connection.execute(keys.create_tenant(TENANT, "default"))
        bench = Bench(Node("node_1", settings, database, ArtifactStore(settings.resolved_artifact_url), 0))
        first = bench.submit(DIGITS | {"name": "digits"})
        bench.run()

        job_id = submitted(bench)
        bench.run()

        ended = bench.row(job_id)
        assert ended.state == "succeeded", ended.error
        assert ended.result["weights_sha256"] == bench.row(first).result["weights_sha256"]
        with database.read() as connection:
            final = connection.execute(layers.newest(job_id)).one()
            assert list(connection.execute(layers.steps(first)).scalars()) == [100, 200, 300, 400]
        assert final.final and [layer["name"] for layer in final.layers] == ["hidden1.batch_norm", "hidden2.batch_norm"]
        database.close()
