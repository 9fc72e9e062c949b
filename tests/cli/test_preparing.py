from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from cli.preparing import _see_to_admin_key, issue_admin_key, prepare
from core.credentials import matches, mint, split
from core.db import Database
from core.errors import Conflict
from core.queries import keys
from core.settings import Settings
from core.tables import api_keys, tenants
from migrations.apply import upgrade
from tests.servers import fresh_database


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home", database_url=None)


def stored(settings, key_id):
    database = Database(settings.resolved_database_url)
    with database.read() as connection:
        row = connection.execute(keys.active(key_id)).one_or_none()
    database.close()
    return row


def test_the_key_in_the_file_opens_the_database(settings):
    fresh = prepare(settings)

    key_id, secret = split(settings.resolved_admin_key_file.read_text().strip())
    assert key_id == fresh.id
    assert matches(secret, stored(settings, key_id).secret_sha256)


def test_preparing_again_changes_nothing(settings):
    prepare(settings)
    before = settings.resolved_admin_key_file.read_text()

    assert prepare(settings) is None
    assert settings.resolved_admin_key_file.read_text() == before


def test_a_crash_between_the_key_file_and_its_row_is_healed(settings):
    key = mint()
    settings.home.mkdir()
    settings.resolved_admin_key_file.write_text(f"{key.text}\n")

    assert prepare(settings) is None
    assert stored(settings, key.id).secret_sha256 == key.secret_sha256


def test_a_key_file_that_was_taken_away_is_not_made_anew(settings):
    prepare(settings)
    settings.resolved_admin_key_file.unlink()

    assert prepare(settings) is None
    assert not settings.resolved_admin_key_file.exists()


def test_a_file_that_holds_no_key_is_refused_by_name(settings):
    settings.home.mkdir()
    settings.resolved_admin_key_file.write_text("something else")

    with pytest.raises(Conflict, match="admin-key"):
        prepare(settings)


def test_one_who_lost_every_key_can_make_another(settings):
    prepare(settings)

    key = issue_admin_key(settings)

    assert stored(settings, key.id).secret_sha256 == key.secret_sha256


def test_the_admin_key_is_taken_from_the_file_that_is_named(tmp_path):
    key = mint()
    (tmp_path / "secret").write_text(f"{key.text}\n")
    settings = Settings(home=tmp_path / "home", admin_key_file=tmp_path / "secret")

    assert prepare(settings) is None
    assert stored(settings, key.id).secret_sha256 == key.secret_sha256
    assert not (tmp_path / "home" / "admin-key").exists()


@pytest.fixture
def migrated_postgres(postgres_server):
    with fresh_database(postgres_server) as url:
        upgrade(url)
        yield Settings(database_url=url)


def at_once(settings, files):
    """What each of as many preparations makes that start at the same moment; then the rows in tenants and keys."""
    databases = [Database(settings.resolved_database_url) for _ in files]
    try:
        with ThreadPoolExecutor(len(files)) as pool:
            made = list(pool.map(_see_to_admin_key, databases, files))
        with databases[0].read() as connection:
            rows = [connection.scalar(select(func.count()).select_from(table)) for table in (tenants, api_keys)]
    finally:
        for database in databases:
            database.close()
    return made, rows


def test_of_many_that_prepare_one_database_at_once_one_makes_the_key(migrated_postgres, tmp_path):
    files = [tmp_path / f"key-{number}" for number in range(8)]

    made, rows = at_once(migrated_postgres, files)

    assert sum(key is not None for key in made) == 1
    assert [file.exists() for file in files] == [key is not None for key in made]
    assert rows == [1, 1]


def test_many_that_prepare_with_the_same_secret_store_it_once(migrated_postgres, tmp_path):
    key = mint()
    (tmp_path / "secret").write_text(key.text)

    made, rows = at_once(migrated_postgres, [tmp_path / "secret"] * 8)

    assert made == [None] * 8
    assert rows == [1, 1]
    assert stored(migrated_postgres, key.id).secret_sha256 == key.secret_sha256
