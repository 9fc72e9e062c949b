"""docker-compose.yml against the Compose specification, and what the schema can not say."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft201909Validator

from core.credentials import restore
from core.settings import Settings

ROOT = Path(__file__).parent.parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_file_is_what_the_specification_allows() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())

    problems = [f"{list(error.path)}: {error.message}" for error in Draft201909Validator(schema).iter_errors(COMPOSE)]

    assert problems == []


def test_two_apis_stand_behind_the_proxy_and_every_long_lived_service_has_a_health_check() -> None:
    assert COMPOSE["services"]["api"]["deploy"]["replicas"] == 2
    assert "name api" in (ROOT / "deploy" / "Caddyfile").read_text()
    assert [name for name, service in COMPOSE["services"].items() if "healthcheck" not in service] == ["migrate"]


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_names_only_what_exists(name: str) -> None:
    service = OURS[name]
    settings = {f"EVENKEEL_{field.upper()}" for field in Settings.model_fields}

    assert set(service["environment"]) <= settings
    assert set(service["secrets"]) <= set(COMPOSE["secrets"])
    assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
    assert {volume.split(":")[0] for volume in service["volumes"]} <= set(COMPOSE["volumes"])
    assert f"AS {service['build']['target']}\n" in DOCKERFILE


@pytest.mark.parametrize("name", OURS)
def test_every_secret_that_a_setting_names_is_handed_in(name: str) -> None:
    files = [value for value in OURS[name]["environment"].values() if str(value).startswith("/run/secrets/")]

    assert files
    assert {file.removeprefix("/run/secrets/") for file in files} <= set(OURS[name]["secrets"])


def test_only_the_migration_sees_the_admin_key() -> None:
    assert [name for name, service in COMPOSE["services"].items() if "admin_key" in service.get("secrets", [])] == [
        "migrate"
    ]


def test_no_password_stands_in_the_file() -> None:
    assert re.findall(r"(?i)(password|secret|key)[A-Z_]*: +(?!/run|\{file)[\w-]+$", yaml.safe_dump(COMPOSE)) == []
    assert "://" not in json.dumps({name: service["environment"] for name, service in OURS.items()})


def test_only_the_worker_with_a_gpu_asks_for_one() -> None:
    def devices(service: dict[str, Any]) -> list[Any]:
        return service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])

    asking = {name: devices(service) for name, service in COMPOSE["services"].items() if devices(service)}

    assert [(name, found[0]["capabilities"]) for name, found in asking.items()] == [("worker-gpu", ["gpu"])]
    assert COMPOSE["services"]["worker-gpu"]["profiles"] == ["gpu"]


def test_the_api_image_is_built_without_torch_and_no_image_runs_as_root() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    by_name = {re.search(r"AS (\S+)", stage)[1]: stage for stage in stages}  # type: ignore[index]

    assert "torch" not in by_name["build-api"]
    assert "[server,postgres,s3]" in by_name["build-api"]
    assert "torch==" in by_name["build-worker"]
    assert "USER 10001:10001" in by_name["base"]
    assert all(by_name[name].startswith("base AS") for name in ("api", "worker"))


def test_the_images_get_every_package_and_nothing_that_is_not_installed() -> None:
    given = set(re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    packages = re.search(r"packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)

    assert packages is not None
    rooms = {name.split(".")[0] for name in re.findall(r'"(.+?)"', packages[1])}
    assert given == rooms | {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"}


def test_the_secrets_are_made_once_and_fit_together(tmp_path: Path) -> None:
    def make() -> dict[str, str]:
        subprocess.run(["/bin/sh", str(ROOT / "deploy" / "secrets.sh"), str(tmp_path / "secrets")], check=True)
        return {file.name: file.read_text().strip() for file in (tmp_path / "secrets").iterdir()}

    made = make()

    assert make() == made
    assert set(made) == set(COMPOSE["secrets"])
    assert restore(made["admin_key"]) is not None
    assert f":{made['postgres_password']}@postgres:" in made["database_url"]
    assert f"requirepass {made['broker_url'].split(':')[2].split('@')[0]}\n" in made["valkey_conf"]
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
