"""Statements on both databases that the interface relies on."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from core.db import Database, insert_many
from core.identifiers import new_id
from core.queries import (
    aliases,
    checkpoints,
    comparisons,
    events,
    health,
    jobs,
    keys,
    layers,
    leases,
    metrics,
    models,
)
from core.queries.events import EventDraft
from core.tables import SCHEMA_HEAD, metric_points
from migrations.apply import upgrade
from tests.servers import fresh_database

FLAGS = {"complete": False, "best": False}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def migrated(request: pytest.FixtureRequest) -> Iterator[Database]:
    if request.param == "sqlite":
        database = Database(f"sqlite:///{request.getfixturevalue('migrated_sqlite')}")
        yield database
        database.close()
        return
    with fresh_database(request.getfixturevalue("postgres_server")) as url:
        upgrade(url)
        database = Database(url)
        yield database
        database.close()


@pytest.fixture
def connection(migrated: Database) -> Iterator[Connection]:
    """A transaction that is rolled back after the test."""
    with migrated.read() as open_connection:
        yield open_connection


@pytest.fixture
def tenant(connection: Connection) -> str:
    connection.execute(keys.create_tenant("ten_1", "default"))
    return "ten_1"


def job(connection: Connection, tenant: str, **columns: Any) -> Any:
    values: dict[str, Any] = {
        "spec": {},
        "spec_sha256": "0" * 64,
        "name": "n",
        "family": "mlp",
        "metadata": {},
        "priority": 0,
        "needs_cuda": False,
        "flops_per_step": 1,
        "steps": 10,
    }
    row = connection.execute(jobs.create(id=new_id("job"), tenant_id=tenant, **(values | columns))).one()
    connection.execute(events.append(row.id, 1, 0, [EventDraft("status", "queued")]))
    return row


def test_the_applied_migration_is_the_one_that_the_tables_agree_with(connection: Connection) -> None:
    assert connection.execute(health.alive()).scalar_one() == 1
    assert connection.execute(health.migration()).scalar_one() == SCHEMA_HEAD


def test_an_idempotency_key_stands_once_in_a_tenant(connection: Connection, tenant: str) -> None:
    row = job(connection, tenant, idempotency_key="k")

    assert connection.execute(jobs.by_idempotency_key(tenant, "k")).one().id == row.id
    with pytest.raises(IntegrityError), connection.begin_nested():
        job(connection, tenant, idempotency_key="k")


def test_a_page_is_filtered_by_metadata_whatever_its_key(connection: Connection, tenant: str) -> None:
    names = ["team", "a.b", "a[0]", "$", "über", "with space", "'quoted'", '"', "a\\b"]
    made = {name: job(connection, tenant, metadata={name: "x"}).id for name in names}

    for name in names:
        found = connection.execute(jobs.page(tenant, 10, True, metadata={name: "x"})).all()
        assert [row.id for row in found] == [made[name]]


def test_a_status_filter_tells_running_from_cancelling(connection: Connection, tenant: str) -> None:
    row = job(connection, tenant)
    connection.execute(leases.claim_next("node:0", 60.0, False)).one()
    connection.execute(jobs.request_cancel(tenant, row.id, False)).one()

    assert connection.execute(jobs.page(tenant, 10, True, statuses=["running"])).all() == []
    assert len(connection.execute(jobs.page(tenant, 10, True, statuses=["cancelling"])).all()) == 1


def test_heads_and_pages_of_events(connection: Connection, tenant: str) -> None:
    first, second = job(connection, tenant), job(connection, tenant)
    connection.execute(leases.claim_next("node:0", 60.0, False)).one()
    connection.execute(events.append(first.id, 2, 1, [EventDraft("log", "a"), EventDraft("log", "b")]))

    heads = {row.id: row.last_seq for row in connection.execute(events.heads([first.id, second.id]))}
    pages = [
        [row.seq for row in connection.execute(events.between(first.id, after, before, 2, descending))]
        for after, before, descending in [(0, None, False), (1, None, False), (0, 3, True), (1, 2, False)]
    ]

    assert heads == {first.id: 2, second.id: 1}
    assert pages == [[1, 2], [2, 3], [2, 1], []]


def test_points_are_read_in_pieces(connection: Connection, tenant: str) -> None:
    row = job(connection, tenant)
    ids = [connection.execute(metrics.create_series(row.id, name)).scalar_one() for name in ("a", "b")]
    nan = float("nan")
    insert_many(connection, metric_points, metrics.point_rows(ids[0], [1, 5, 9], [1.0, nan, 3.0]))
    insert_many(connection, metric_points, metrics.point_rows(ids[1], [5], [0.5]))

    assert connection.execute(metrics.columns(ids[0], 2)).all() == [(5, None, metrics.NAN), (9, 3.0, 0)]
    assert connection.execute(metrics.summary(ids[0], 2)).scalar_one() == 2
    assert [connection.execute(metrics.next_step(ids, step)).scalar_one() for step in (0, 2, 9, 10)] == [1, 5, 9, None]
    between = connection.execute(metrics.points_between(ids, 2, 5)).all()
    assert sorted((point.series_id, point.step) for point in between) == [(ids[0], 5), (ids[1], 5)]


def test_a_retry_copies_series_and_points(connection: Connection, tenant: str) -> None:
    old, new = job(connection, tenant), job(connection, tenant)
    series = connection.execute(metrics.create_series(old.id, "a")).scalar_one()
    insert_many(connection, metric_points, metrics.point_rows(series, [1, 2], [1.0, float("inf")]))

    connection.execute(jobs.copy_series(old.id, new.id))
    connection.execute(jobs.copy_points(old.id, new.id))

    (copied,) = connection.execute(metrics.all_series(new.id)).all()
    assert connection.execute(metrics.columns(copied.id, 0)).all() == [(1, 1.0, 0), (2, None, 2)]


def test_a_terminal_job_takes_no_request(connection: Connection, tenant: str) -> None:
    row = job(connection, tenant)
    assert connection.execute(jobs.cancel_waiting(tenant, row.id)).one().base == 2

    for statement in (
        jobs.cancel_waiting(tenant, row.id),
        jobs.request_cancel(tenant, row.id, True),
        jobs.request_pause(tenant, row.id),
        jobs.resume(tenant, row.id),
    ):
        assert connection.execute(statement).one_or_none() is None


def test_a_version_is_found_by_number_alias_or_default(connection: Connection, tenant: str) -> None:
    connection.execute(models.create("mdl_1", tenant, "m"))
    connection.execute(models.create("mdl_2", tenant, "other"))
    for model_id, number in [("mdl_1", 1), ("mdl_1", 2), ("mdl_2", 7)]:
        connection.execute(
            models.create_version(
                model_id=model_id,
                version=number,
                job_id=job(connection, tenant).id,
                card={"n": number},
                artifacts={},
                weights_sha256="0" * 64,
            )
        )

    def found(number: int | None = None, alias: str | None = None) -> Any:
        row = connection.execute(models.resolve(tenant, "m", number, alias)).one_or_none()
        return None if row is None else row.version

    assert (found(), found(1), found(3), found(alias="stable")) == (2, 1, None, None)
    connection.execute(aliases.create("mdl_1", "latest", 1))
    connection.execute(aliases.create("mdl_1", "stable", 2))
    assert (found(), found(alias="stable"), found(2, "latest")) == (1, 2, 2)
    assert connection.execute(models.resolve("ten_2", "m", None, None)).one_or_none() is None
    assert connection.execute(models.card("mdl_1", 2)).scalar_one() == {"n": 2}
    newest = {row.model_id: row.version for row in connection.execute(models.last_versions(["mdl_1", "mdl_2"]))}
    assert newest == {"mdl_1": 2, "mdl_2": 7}


def test_an_alias_points_only_at_a_version_that_is_there(connection: Connection, tenant: str) -> None:
    connection.execute(models.create("mdl_1", tenant, "m"))

    with pytest.raises(DBAPIError), connection.begin_nested():
        connection.execute(aliases.create("mdl_1", "latest", 1))


def test_a_key_is_active_until_it_is_revoked_or_expires(connection: Connection, tenant: str) -> None:
    for key_id, expires_at in [("key_1", None), ("key_2", 1), ("key_3", 2**52)]:
        connection.execute(
            keys.create(
                id=key_id,
                tenant_id=tenant,
                name="k",
                secret_sha256="0" * 64,
                scopes=["jobs:read"],
                expires_at=expires_at,
            )
        )

    def active() -> list[str]:
        ids = ("key_1", "key_2", "key_3")
        return [key_id for key_id in ids if connection.execute(keys.active(key_id)).one_or_none()]

    assert active() == ["key_1", "key_3"]
    assert connection.execute(keys.revoke(tenant, "key_1")).one().revoked_at is not None
    assert connection.execute(keys.revoke("ten_2", "key_3")).one_or_none() is None
    assert active() == ["key_3"]


def test_a_complete_checkpoint_is_found(connection: Connection, tenant: str) -> None:
    row = job(connection, tenant)
    common = {"job_id": row.id, "attempt": 1, "name": "c", "sha256": "0" * 64, "bytes": 1, "best": False}
    connection.execute(checkpoints.create(id="ckpt_1", step=5, complete=False, **common))
    assert connection.execute(jobs.complete_checkpoint(row.id)).one_or_none() is None

    connection.execute(checkpoints.create(id="ckpt_2", step=10, complete=True, **common))

    assert connection.execute(jobs.complete_checkpoint(row.id)).one().step == 10


def test_reports_on_layers_are_kept_to_the_newest_and_found_by_step(connection: Connection, tenant: str) -> None:
    ours, other = job(connection, tenant).id, job(connection, tenant).id
    told = [{"name": "b", "gamma": None, "mean": {"max": 0.1}}, {"name": "a"}]
    for step in (10, 20, 30, 40):
        connection.execute(layers.create(job_id=ours, step=step, final=step == 40, layers=told))
        connection.execute(layers.create(job_id=other, step=step, final=False, layers=[]))

    connection.execute(layers.keep_newest(ours, 3))
    connection.execute(layers.keep_newest(ours, 9))

    assert list(connection.execute(layers.steps(ours)).scalars()) == [20, 30, 40]
    assert len(list(connection.execute(layers.steps(other)).scalars())) == 4
    newest = connection.execute(layers.newest(ours)).one()
    assert (newest.step, newest.final, newest.layers) == (40, True, told)
    assert connection.execute(layers.newest(ours, 39)).one().step == 30
    assert connection.execute(layers.newest(ours, 19)).one_or_none() is None
    connection.execute(layers.remove_after(ours, 25))
    assert list(connection.execute(layers.steps(ours)).scalars()) == [20]


def test_a_fork_begins_with_the_points_up_to_its_checkpoint_and_their_latest_values(
    connection: Connection, tenant: str
) -> None:
    source = job(connection, tenant)
    fork = job(connection, tenant, forked_from=source.id)
    late = connection.execute(metrics.create_series(source.id, "bn/late")).scalar_one()
    loss = connection.execute(metrics.create_series(source.id, "train/loss")).scalar_one()
    rows = metrics.point_rows(loss, [1, 2, 3, 4], [4.0, float("inf"), 2.0, 1.0]) + metrics.point_rows(late, [4], [9.0])
    insert_many(connection, metric_points, rows)

    connection.execute(jobs.copy_series(source.id, fork.id, 2))
    connection.execute(jobs.copy_points(source.id, fork.id, 2))
    connection.execute(jobs.latest_of_copies(fork.id))

    (series,) = connection.execute(metrics.all_series(fork.id)).all()
    assert (series.name, series.last_step, series.last_value, series.last_nonfinite) == ("train/loss", 2, None, 2)
    assert [point.step for point in connection.execute(metrics.points(series.id))] == [1, 2]
    connection.execute(
        checkpoints.create(id="c", job_id=fork.id, step=2, attempt=0, name="f", sha256="", bytes=1, **FLAGS)
    )
    assert connection.execute(checkpoints.of_forks(source.id)).scalars().all() == ["f"]
    assert connection.execute(checkpoints.of_forks(fork.id)).scalars().all() == []


def test_a_search_goes_on_in_its_row(connection: Connection, tenant: str) -> None:
    made = {"spec": {}, "spec_sha256": "", "name": "n", "metadata": {}, "plan": {"rung": 0}}
    for comparison_id, searching in (("cmp_1", True), ("cmp_2", False)):
        connection.execute(comparisons.create(id=comparison_id, tenant_id=tenant, searching=searching, **made))

    assert connection.execute(comparisons.searching()).scalars().all() == ["cmp_1"]
    connection.execute(comparisons.go_on("cmp_1", {"rung": 1}, searching=True))
    assert connection.execute(comparisons.held("cmp_1")).one().plan == {"rung": 1}
    connection.execute(comparisons.end_search("cmp_1"))
    assert connection.execute(comparisons.searching()).scalars().all() == []
