"""Secrets by file: as containers are given them."""

from pathlib import Path

import pytest

from core.errors import SettingsInvalid
from core.settings import load_settings

SECRETS = ["database_url", "broker_url", "api_key"]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_comes_from_its_file_without_the_line_break(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text("value:of//it\n")
    monkeypatch.setenv(f"EVENKEEL_{name.upper()}_FILE", str(file))

    assert getattr(load_settings(), name) == "value:of//it"


@pytest.mark.parametrize("name", SECRETS)
def test_the_value_itself_wins_over_its_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text("from the file")
    monkeypatch.setenv(f"EVENKEEL_{name.upper()}_FILE", str(file))
    monkeypatch.setenv(f"EVENKEEL_{name.upper()}", "from the variable")

    assert getattr(load_settings(), name) == "from the variable"


@pytest.mark.parametrize("name", SECRETS)
def test_a_file_that_is_not_there_is_named_with_its_variable(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"EVENKEEL_{name.upper()}_FILE", str(tmp_path / "missing"))

    with pytest.raises(SettingsInvalid, match=rf"EVENKEEL_{name.upper()}_FILE.*missing can not be read"):
        load_settings()


def test_an_empty_file_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").touch()
    monkeypatch.setenv("EVENKEEL_DATABASE_URL_FILE", str(tmp_path / "secret"))

    with pytest.raises(SettingsInvalid, match="secret is empty"):
        load_settings()


def test_an_error_never_shows_a_secret_of_another_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("the password")
    monkeypatch.setenv("EVENKEEL_DATABASE_URL_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("EVENKEEL_PORT", "many")

    with pytest.raises(SettingsInvalid) as raised:
        load_settings()

    assert "the password" not in str(raised.value)
