import pytest

from cli.preparing import issue_admin_key, prepare
from core.credentials import matches, mint, split
from core.db import Database
from core.errors import Conflict
from core.queries import keys
from core.settings import Settings


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
