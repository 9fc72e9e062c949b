"""Statements on data sets, on both engines."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.db import Database
from core.queries import datasets, jobs, keys, leases
from migrations.apply import upgrade
from tests.servers import fresh_database

TENANT = "ten_1"


@pytest.fixture(params=["sqlite", "postgres"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        yield from opened(f"sqlite:///{tmp_path / 'empty.sqlite'}")
        return
    with fresh_database(request.getfixturevalue("postgres_server")) as url:
        yield from opened(url)


def opened(url: str) -> Iterator[Database]:
    upgrade(url)
    database = Database(url)
    with database.write() as connection:
        connection.execute(keys.create_tenant(TENANT, "default"))
    yield database
    database.close()


def add(database: Database, name: str, *numbers: int) -> str:
    dataset_id = f"ds_{name}"
    with database.write() as connection:
        connection.execute(datasets.create(dataset_id, TENANT, name))
        for number in numbers:
            connection.execute(
                datasets.create_version(
                    dataset_id=dataset_id,
                    version=number,
                    sha256=str(number),
                    bytes=1,
                    options={},
                    facts={},
                    contents={},
                    artifact={},
                )
            )
    return dataset_id


def add_job(database: Database, job_id: str, dataset: dict[str, Any]) -> None:
    with database.write() as connection:
        connection.execute(
            jobs.create(
                id=job_id,
                tenant_id=TENANT,
                spec={"dataset": dataset},
                spec_sha256="0",
                name="n",
                family="mlp",
                metadata={},
                priority=0,
                needs_cuda=False,
                flops_per_step=1,
                steps=1,
            )
        )


def numbers(database: Database, statement: Any) -> list[Any]:
    with database.read() as connection:
        return [row.version for row in connection.execute(statement)]


def test_versions_are_found_by_number_or_the_newest_until_they_are_deleted(anywhere: Database) -> None:
    dataset_id = add(anywhere, "waves", 1, 2, 3)

    with anywhere.write() as connection:
        connection.execute(datasets.delete_versions(dataset_id, [1, 3]))
        last = connection.execute(datasets.last_version(dataset_id)).scalar_one()

    assert numbers(anywhere, datasets.resolve(TENANT, "waves", None)) == [2]
    assert numbers(anywhere, datasets.resolve(TENANT, "waves", 3)) == []
    assert numbers(anywhere, datasets.versions([dataset_id])) == [2]
    assert numbers(anywhere, datasets.resolve("ten_2", "waves", None)) == []
    assert last == 3


def test_a_page_has_only_data_sets_with_a_version(anywhere: Database) -> None:
    for name in ("a", "b", "c"):
        add(anywhere, name, *([1] if name != "b" else []))

    with anywhere.read() as connection:
        first = connection.execute(datasets.page(TENANT, 1, True)).all()
        rest = connection.execute(datasets.page(TENANT, 5, True, first[0])).all()

    assert [row.name for row in [*first, *rest]] == ["c", "a"]


def test_only_jobs_that_have_not_ended_need_a_version(anywhere: Database) -> None:
    add(anywhere, "waves", 1, 2)
    mine = {"source": "uploaded", "name": "waves", "version": 2}
    for job_id, dataset in {
        "job_1": mine,
        "job_2": mine | {"version": 1},
        "job_3": mine | {"name": "others"},
        "job_4": {"source": "digits"},
        "job_5": mine,
    }.items():
        add_job(anywhere, job_id, dataset)
    with anywhere.write() as connection:
        row = connection.execute(leases.claim_next("node", 60.0, True)).one()
        connection.execute(leases.finish(row.id, row.fence, 0, 1, state="failed", error={}))

    with anywhere.read() as connection:
        needing = connection.execute(datasets.unfinished_jobs(TENANT, "waves", [2])).scalars().all()

    assert (row.id, needing) == ("job_1", ["job_5"])


def test_a_data_set_that_a_job_is_being_written_for_is_not_deleted_meanwhile(anywhere: Database) -> None:
    dataset_id = add(anywhere, "waves", 1)
    order: list[str] = []

    def delete() -> None:
        with anywhere.write() as connection:
            connection.execute(datasets.held(TENANT, "waves")).one()
            order.append("deleted")
            connection.execute(datasets.delete_versions(dataset_id, [1]))

    with anywhere.write() as connection:
        assert connection.execute(datasets.used(TENANT, "waves", 1)).one_or_none() is not None
        deleting = threading.Thread(target=delete)
        deleting.start()
        deleting.join(0.3)  # it must still wait; that it does not end here is what is shown
        order.append("written")
    deleting.join(20)

    assert order == ["written", "deleted"]
    with anywhere.write() as connection:
        assert connection.execute(datasets.used(TENANT, "waves", 1)).one_or_none() is None
