"""Nodes without a common folder: their artifacts meet on S3."""

import multiprocessing
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import forkserver as standard_forkserver
from pathlib import Path

import pytest

from core.artifacts import ArtifactStore
from core.db import Database
from core.queries import keys
from core.settings import Settings
from tests.s3 import S3, s3_server
from tests.worker.bench import LONG, TENANT, Bench, wait_until
from tests.worker.test_supervisor import same_run, trainer_of
from tests.worker.trainer.test_uploads import sequences, stored
from worker import forkserver
from worker.node import Node

PROBE = """
import sys, fsspec.asyn
assert "s3fs" not in sys.modules, "loaded before the fork"
assert fsspec.asyn.iothread[0] is None, "a thread that is not here"
from core.artifacts import ArtifactStore
store = ArtifactStore({url!r})
store.put("of-a-trainer.bin", b"weights")
store.close()
"""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """With a forkserver of its own: a trainer's environment is that of its forkserver."""
    with s3_server(monkeypatch) as server:
        standard_forkserver._forkserver._stop()
        yield server
        standard_forkserver._forkserver._stop()


@pytest.fixture
def url(s3: S3) -> str:
    return f"s3://{s3.bucket()}/artifacts"


def node_at(home: Path, name: str, database: Database, url: str | None) -> Node:
    settings = Settings(home=home, artifact_url=url, lease_seconds=20, tick_seconds=0.05, stall_seconds=30)
    store = ArtifactStore(settings.resolved_artifact_url, settings.artifact_cache_dir, settings.artifact_cache_bytes)
    return Node(name, settings, database, store, 0)


def test_a_trainer_writes_to_s3_after_its_parent_has(url: str) -> None:
    with closing(ArtifactStore(url)) as store:
        store.put("of-the-parent.bin", b"weights")
        forkserver.warm_up()
        trainer = multiprocessing.get_context("forkserver").Process(target=exec, args=(PROBE.format(url=url),))
        trainer.start()
        trainer.join(30)

        assert trainer.exitcode == 0
        assert store.names("") == ["of-a-trainer.bin", "of-the-parent.bin"]


@pytest.fixture
def benches(url: str, database: Database, tmp_path: Path) -> Iterator[tuple[Bench, Bench, Bench]]:
    """One with a folder of its own, for undisturbed runs, and two that meet on S3."""
    with database.write() as connection:
        connection.execute(keys.create_tenant(TENANT, "default"))
    places = {"alone": None, "first": url, "second": url}
    made = [Bench(node_at(tmp_path / name, f"node_{name}", database, place)) for name, place in places.items()]
    yield made[0], made[1], made[2]
    for bench in made:
        bench.stop()
        bench.node.store.close()


def messages(bench: Bench, job_id: str) -> str:
    return "\n".join(event.message for event in bench.events(job_id))


def killed_behind_a_checkpoint(bench: Bench, job_id: str) -> None:
    thread = bench.run_aside()
    bench.wait_for_steps_behind_a_checkpoint(job_id)
    trainer_of(job_id).kill()
    bench.finish(thread)


def test_a_second_node_resumes_from_the_checkpoint_of_one_that_was_killed(
    benches: tuple[Bench, Bench, Bench], tmp_path: Path
) -> None:
    alone, first, second = benches
    golden_id = alone.submit(LONG | {"publish": None})
    alone.run()

    job_id = first.submit(LONG | {"publish": None})
    killed_behind_a_checkpoint(first, job_id)
    resumed_from = second.checkpoints(job_id)[0]
    second.run()

    assert second.row(job_id).attempt == 2
    assert 0 < resumed_from.step < 4000
    assert "can not be used" not in messages(second, job_id)
    assert {row.name for row in second.checkpoints(job_id)} <= set(second.node.store.names("checkpoints"))
    assert (tmp_path / "second" / "cache" / resumed_from.sha256).exists()
    assert not any((tmp_path / name / "artifacts").exists() for name in ("first", "second"))
    same_run(second, job_id, golden_id)


def test_a_job_whose_checkpoint_can_not_be_read_now_waits_for_it(benches: tuple[Bench, Bench, Bench], s3: S3) -> None:
    alone, first, second = benches
    golden_id = alone.submit(LONG | {"publish": None})
    alone.run()
    job_id = first.submit(LONG | {"publish": None})
    killed_behind_a_checkpoint(first, job_id)
    step = second.checkpoints(job_id)[0].step

    s3.go_away()
    second.run()
    waiting, rest = second.row(job_id), second.node.reading.left_seconds
    s3.come_back()
    second.run()

    assert (waiting.state, waiting.attempt, waiting.attempts_without_progress) == ("queued", 2, 0)
    assert rest > 0 == second.node.reading.left_seconds
    assert "no checkpoint can be read now, and none is lost" in messages(second, job_id)
    assert "begins again" not in messages(second, job_id)
    row = second.row(job_id)
    trained = round(row.result["steps_per_second"] * row.result["training_seconds"])
    assert (row.attempt, trained) == (3, 4000 - step)
    same_run(second, job_id, golden_id)


def test_a_trainer_reads_what_was_uploaded_from_s3_and_keeps_a_copy(
    benches: tuple[Bench, Bench, Bench], tmp_path: Path, s3: S3
) -> None:
    _, first, _ = benches
    dataset, _ = stored(sequences(), tmp_path)
    kept = dataset["stored"]["file"]
    first.node.store.put_file(kept["name"], tmp_path / "file")
    network = {"family": "recurrent", "units": [4]}
    training = {"steps": 5, "batch_size": 16, "evaluate_every": 5}
    spec = {"dataset": dataset, "network": network, "training": training, "publish": None}

    ids = [first.submit(spec), first.submit(spec)]
    first.run()
    first.node.store.delete(kept["name"])
    first.run()

    results = [first.row(job_id).result for job_id in ids]
    assert results[0]["weights_sha256"] == results[1]["weights_sha256"]
    assert (tmp_path / "first" / "cache" / kept["sha256"]).exists()


def test_a_store_that_is_away_at_a_checkpoint_costs_no_attempt(benches: tuple[Bench, Bench, Bench], s3: S3) -> None:
    alone, first, _ = benches
    golden_id = alone.submit(LONG)
    alone.run()
    job_id = first.submit(LONG)
    thread = first.run_aside()
    first.wait_for_checkpoint(job_id, 200)

    s3.go_away()
    wait_until(lambda: "the artifact store is away" in messages(first, job_id))
    s3.come_back()
    first.finish(thread)

    assert first.row(job_id).attempt == 1
    assert "the artifact store is back" in messages(first, job_id)
    assert first.checkpoints(job_id)[0].step == 4000
    same_run(first, job_id, golden_id)
