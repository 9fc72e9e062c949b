"""Migrations: there and back on both engines, and terminal jobs stay as they are after every step."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from core.tables import SCHEMA_HEAD
from migrations.apply import config_for, downgrade, upgrade
from tests.servers import fresh_database

REVISIONS = [
    script.revision for script in reversed(list(ScriptDirectory.from_config(config_for("sqlite://")).walk_revisions()))
]


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.sqlite'}"
        return
    with fresh_database(request.getfixturevalue("postgres_server")) as url:
        yield url


def insert_job(url: str, job_id: str, state: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO tenants (id, name, created_at) VALUES (:id, :id, 0) ON CONFLICT DO NOTHING"),
            {"id": "ten_1"},
        )
        connection.execute(
            text(
                "INSERT INTO jobs (id, tenant_id, spec, spec_sha256, name, family, metadata, priority, needs_cuda,"
                " flops_per_step, state, steps, created_at)"
                " VALUES (:id, 'ten_1', '{}', 'x', 'n', 'mlp', '{}', 0, false, 1, :state, 10, 0)"
            ),
            {"id": job_id, "state": state},
        )
    engine.dispose()


def change(url: str, job_id: str, assignment: str) -> None:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE jobs SET {assignment} WHERE id = :id"), {"id": job_id})
    finally:
        engine.dispose()


def test_there_is_one_head_and_the_tables_know_it() -> None:
    assert ScriptDirectory.from_config(config_for("sqlite://")).get_heads() == [SCHEMA_HEAD]


def test_tables_and_migrations_agree(empty_database: str) -> None:
    upgrade(empty_database)

    command.check(config_for(empty_database))


def test_up_down_and_up_again(empty_database: str) -> None:
    upgrade(empty_database)
    downgrade(empty_database, "base")
    upgrade(empty_database)

    command.check(config_for(empty_database))


def test_a_second_upgrade_changes_nothing(empty_database: str) -> None:
    upgrade(empty_database)
    insert_job(empty_database, "job_1", "queued")

    upgrade(empty_database)

    change(empty_database, "job_1", "priority = 1")


@pytest.mark.parametrize("assignment", ["state = 'queued'", "result = '{\"a\": 1}'", "error = '{\"a\": 1}'"])
@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_a_terminal_job_never_changes_after_any_upgrade_step(empty_database: str, state: str, assignment: str) -> None:
    for revision in REVISIONS:
        upgrade(empty_database, revision)
        insert_job(empty_database, f"job_{revision}", state)

        with pytest.raises(IntegrityError, match="a terminal job never changes"):
            change(empty_database, f"job_{revision}", assignment)


def test_a_waiting_job_may_change_after_any_upgrade_step(empty_database: str) -> None:
    for revision in REVISIONS:
        upgrade(empty_database, revision)
        insert_job(empty_database, f"job_{revision}", "queued")

        change(empty_database, f"job_{revision}", "state = 'cancelled'")
