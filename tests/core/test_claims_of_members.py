"""At most so many members of a comparison run at once, and nobody else waits for it; on both databases."""

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event, text

from api.members import cancel_comparison
from core.db import Database, insert_many
from core.identifiers import new_id
from core.queries import comparisons, events, jobs, keys, leases, metrics
from core.tables import metric_points
from migrations.apply import upgrade
from tests.servers import fresh_database
from worker.claims import claim_next
from worker.node import Node

TENANT = "ten_1"
JOB: dict[str, Any] = {
    "tenant_id": TENANT,
    "spec": {},
    "spec_sha256": "0" * 64,
    "name": "n",
    "family": "mlp",
    "metadata": {},
    "needs_cuda": False,
    "flops_per_step": 1,
    "steps": 10,
}


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    if request.param == "sqlite":
        database = Database(request.getfixturevalue("sqlite_url"))
        prepare(database)
        yield database
        database.close()
        return
    with fresh_database(request.getfixturevalue("postgres_server")) as url:
        upgrade(url)
        database = Database(url, pool_size=12)
        prepare(database)
        yield database
        database.close()


def prepare(database: Database) -> None:
    with database.write() as connection:
        connection.execute(keys.create_tenant(TENANT, "default"))


@pytest.fixture
def node(database: Database, tmp_path: Path) -> Node:
    settings: Any = SimpleNamespace(lease_seconds=60.0)
    store: Any = None
    return Node("node_1", settings, database, store, 0)


def compare(database: Database, members: int, most: int | None, priority: int = -10) -> str:
    comparison_id = new_id("cmp")
    rows = [
        JOB | {"id": new_id("job"), "comparison_id": comparison_id, "variant": "v", "seed": seed, "priority": priority}
        for seed in range(members)
    ]
    with database.write() as connection:
        connection.execute(
            comparisons.create(
                id=comparison_id,
                tenant_id=TENANT,
                spec={},
                spec_sha256="0" * 64,
                name="c",
                metadata={},
                plan={},
                maximum_running=most,
            )
        )
        connection.execute(comparisons.create_members(rows))
        connection.execute(comparisons.create_first_events([row["id"] for row in rows]))
    return comparison_id


def alone(database: Database, **columns: Any) -> str:
    with database.write() as connection:
        made = connection.execute(jobs.create(id=new_id("job"), **(JOB | {"priority": 0} | columns))).one()
    return str(made.id)


def claimed(node: Node) -> Any:
    claim = claim_next(node, 0)
    return None if claim is None else claim.row


def end(node: Node, row: Any) -> None:
    with node.database.write() as connection:
        connection.execute(leases.finish(row.id, row.fence, 0, 0, state="succeeded")).one()


def test_members_run_in_their_order_up_to_the_limit(node: Node) -> None:
    compare(node.database, 4, most=2)

    first, second, none = claimed(node), claimed(node), claimed(node)
    end(node, first)
    third, none_again = claimed(node), claimed(node)

    assert [row.seed for row in (first, second, third)] == [0, 1, 2]
    assert none is None
    assert none_again is None


def test_an_idle_worker_is_not_woken_for_members_that_may_not_run(node: Node) -> None:
    compare(node.database, 2, most=1)
    claimed(node)

    with node.database.read() as connection:
        assert not connection.execute(leases.waiting(False)).scalar_one()


def test_a_full_comparison_holds_up_nobody_else(node: Node) -> None:
    compare(node.database, 3, most=1, priority=50)
    other = compare(node.database, 2, most=None)
    member = claimed(node)
    job_id = alone(node.database)

    order = [claimed(node) for _ in range(4)]

    assert member.priority == 50
    assert order[0].id == job_id
    assert [row.comparison_id for row in order[1:3]] == [other, other]
    assert order[3] is None


def test_workers_that_claim_at_the_same_moment_keep_to_the_limit(node: Node) -> None:
    for _ in range(5):
        comparison_id = compare(node.database, 8, most=3)
        barrier = threading.Barrier(8)
        found: list[Any] = []

        def claim(barrier: threading.Barrier = barrier, found: list[Any] = found) -> None:
            barrier.wait()
            found.append(claimed(node))

        threads = [threading.Thread(target=claim) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        rows = [row for row in found if row is not None]
        assert [row.comparison_id for row in rows] == [comparison_id] * 3
        with node.database.write() as connection:
            connection.execute(
                text("UPDATE jobs SET state = 'cancelled', lease_expires_at = NULL WHERE state <> 'cancelled'")
            )


def test_a_cancel_among_claims_leaves_no_member_that_was_not_told(node: Node) -> None:
    comparison_id = compare(node.database, 12, most=6)
    barrier = threading.Barrier(5)

    def claim() -> None:
        barrier.wait()
        claimed(node)
        claimed(node)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait()
    cancel_comparison(node.database, TENANT, comparison_id)
    for thread in threads:
        thread.join()

    with node.database.read() as connection:
        rows = connection.execute(comparisons.members(comparison_id)).all()
        logs = {row.id: [at.seq for at in connection.execute(events.after(row.id, 0, 100))] for row in rows}
    assert {row.state for row in rows} <= {"cancelled", "running"}
    assert all(row.cancel_requested_at is not None for row in rows)
    assert sum(row.state == "running" for row in rows) <= 6
    assert all(logs[row.id] == list(range(1, row.next_seq)) for row in rows)


def test_points_of_members_come_in_the_order_of_steps_and_only_of_this_comparison(database: Database) -> None:
    ours, other = compare(database, 2, most=None), compare(database, 1, most=None)
    with database.write() as connection:
        for comparison_id in (ours, other):
            for row in connection.execute(comparisons.members(comparison_id)).all():
                for name in ("test/accuracy", "train/accuracy"):
                    series = connection.execute(metrics.create_series(row.id, name)).scalar_one()
                    points = metrics.point_rows(series, [10, 20, 30], [0.1, math.nan, 0.3])
                    insert_many(connection, metric_points, points)
                    latest = {"series_id": series, "latest_step": 30, "latest_value": 0.3, "latest_nonfinite": 0}
                    connection.execute(metrics.update_latest(), [latest])

    with database.read() as connection:
        ids = {row.id for row in connection.execute(comparisons.members(ours))}
        evaluations = connection.execute(comparisons.points(ours, ["test/accuracy"])).all()
        recent = connection.execute(comparisons.last_points(ours, "train/accuracy", 15)).all()

    assert {point.job_id for point in evaluations} == {point.job_id for point in recent} == ids
    assert [(point.step, point.nonfinite) for point in evaluations] == [(10, 0), (20, metrics.NAN), (30, 0)] * 2
    assert [point.step for point in recent] == [20, 30] * 2


def test_the_guard_is_computed_once_a_claim_and_finds_running_jobs_by_index(database: Database) -> None:
    compare(database, 300, most=2)
    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("ANALYZE jobs"))
    plan: list[str] = []

    with database.read() as connection:
        prefix = "EXPLAIN " if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "

        @event.listens_for(connection, "before_cursor_execute")
        def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
            plan.extend(str(tuple(row)) for row in cursor.execute(prefix + statement, parameters).fetchall())

        connection.execute(leases.claim_next("node:0", 60.0, False)).one()

    whole = "\n".join(plan)
    print(whole)
    if database_name(database) == "postgresql":
        assert "hashed SubPlan" in whole
    else:
        assert "LIST SUBQUERY" in whole
        assert "CORRELATED LIST" not in whole
        assert "USING INDEX ix_jobs_claim (state=?)" in whole


def database_name(database: Database) -> str:
    with database.read() as connection:
        return connection.dialect.name
