"""Races that a database with many writers allows, and SQLite does not."""

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from api import transitions
from core.artifacts import ArtifactStore
from core.db import Database
from core.queries import jobs, keys, leases
from core.settings import Settings
from migrations.apply import upgrade
from tests.worker.bench import DIGITS, TENANT, Bench
from worker import reaper
from worker.claims import claim_next
from worker.node import Node
from worker.publication import publish


@pytest.fixture
def bench(postgres_server: str, tmp_path: Path) -> Iterator[Bench]:
    name = f"test_{secrets.token_hex(4)}"
    admin = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    upgrade(url)
    settings = Settings(home=tmp_path, database_url=url, lease_seconds=0.001)
    database = Database(url)
    with database.write() as connection:
        connection.execute(keys.create_tenant(TENANT, "default"))
    yield Bench(Node("node_1", settings, database, ArtifactStore(str(tmp_path / "artifacts")), 0))
    database.close()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name}"))
    admin.dispose()


def test_a_cancel_is_accepted_though_the_reaper_takes_the_job_at_that_moment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = bench.submit(DIGITS)
    assert claim_next(bench.node, 0) is not None
    sweep = threading.Thread(target=reaper.reap, args=(bench.node,))
    request_cancel = jobs.request_cancel

    def late(*arguments: Any) -> Any:
        sweep.start()
        sweep.join(0.5)  # it leaves a row that is held alone, or has moved the job back to the queue
        return request_cancel(*arguments)

    monkeypatch.setattr(jobs, "request_cancel", late)
    _, changed = transitions.cancel(bench.node.database, TENANT, job_id, False)
    sweep.join()
    reaper.reap(bench.node)

    assert changed
    assert bench.row(job_id).state == "cancelled"
    assert [event.seq for event in bench.events(job_id)] == list(range(1, bench.row(job_id).next_seq))


def test_a_reaper_leaves_what_another_one_holds_and_waits_for_nobody(bench: Bench) -> None:
    ids = [bench.submit(DIGITS) for _ in range(2)]
    assert all(claim_next(bench.node, 0) for _ in ids)

    with bench.node.database.write() as another:
        another.execute(leases.lock(ids[0]))
        taken = reaper.reap(bench.node)

    assert taken == [ids[1]]
    assert reaper.reap(bench.node) == [ids[0]]


def test_two_jobs_that_publish_a_new_model_at_once_make_its_first_two_versions(bench: Bench) -> None:
    rows = [bench.row(bench.submit(DIGITS | {"publish": {"model": "m", "alias": "latest"}})) for _ in range(2)]
    made: list[int] = []
    first_wrote, go_on = threading.Event(), threading.Event()

    def publishing(row: Any) -> None:
        with bench.node.database.write() as connection:
            made.append(publish(connection, row, {"weights_sha256": "0" * 64}, {}, {})["version"])
            first_wrote.set()
            go_on.wait(5)

    threads = [threading.Thread(target=publishing, args=(row,)) for row in rows]
    threads[0].start()
    first_wrote.wait(5)
    threads[1].start()
    threads[1].join(0.3)  # it waits for the first one's row
    go_on.set()
    for thread in threads:
        thread.join()

    assert made == [1, 2]
