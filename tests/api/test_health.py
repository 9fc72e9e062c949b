import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api.main import create_app
from core.db import Database
from core.settings import Settings
from tests.api.application import TestClient
from tests.api.bench import Tenant, Worker


def test_alive_and_ready_need_no_key(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {
        "status": "ok",
        "checks": {"database": "ok", "migration": "ok", "artifacts": "ok"},
    }


def test_an_unmigrated_database_is_not_ready(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path / 'empty.sqlite'}")

    with TestClient(create_app(settings)) as client:
        answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"]["database"] == "ok"
    assert "evenkeel migrate" in answer.json()["checks"]["migration"]


def test_a_database_that_is_away_is_not_ready(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url="sqlite:////nowhere/at/all.sqlite")

    with TestClient(create_app(settings)) as client:
        answer = client.get("/readyz")

    assert answer.status_code == 503
    assert "does not answer" in answer.json()["checks"]["database"]


def test_prometheus_counts_jobs_by_state_and_requests_by_route(
    client: TestClient, tenant: Tenant, database: Database
) -> None:
    tenant.job()
    tenant.job()
    Worker(database)
    client.get("/v1/jobs/job_unknown", headers=tenant.headers)

    text = client.get("/metrics").text

    assert 'evenkeel_jobs{state="queued"} 1.0' in text
    assert 'evenkeel_jobs{state="running"} 1.0' in text
    assert 'evenkeel_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"} 1.0' in text


def test_prometheus_needs_a_key_from_elsewhere(settings: Settings, tenant: Tenant) -> None:
    with TestClient(create_app(settings), client=("192.0.2.1", 50000)) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers=tenant.headers).status_code == 200


def test_the_description_is_whole_and_has_examples(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()

    text = json.dumps(schema)
    pointers = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert pointers <= set(schema["components"]["schemas"])
    assert "JobSpec" in pointers
    assert "HTTPValidationError" not in text
    for path, found in schema["paths"].items():
        for method, operation in found.items():
            described(path, method, operation)


def test_the_page_for_people_asks_nobody_else(client: TestClient) -> None:
    page = client.get("/docs")

    assert page.status_code == 200
    assert "/openapi.json" in page.text
    assert not re.search(r"https?://", page.text)


def described(path: str, method: str, operation: dict[str, Any]) -> None:
    where = (method, path)
    assert operation["responses"], where
    if path.startswith("/v1"):
        assert operation["responses"]["default"]["content"]["application/problem+json"], where
        assert operation["security"] == [{"HTTPBearer": []}], where
    named = set(re.findall(r"\{(\w+)\}", path))
    assert named == {item["name"] for item in operation.get("parameters", ()) if item["in"] == "path"}, where
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]
        assert content, where
        assert "application/json" not in content or content["application/json"]["examples"], where


@pytest.mark.parametrize("name", ["smallest", "mnist"])
def test_the_examples_of_a_spec_are_valid(client: TestClient, tenant: Tenant, name: str) -> None:
    schema = client.get("/openapi.json").json()
    examples = schema["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["examples"]

    answer = client.post("/v1/jobs:validate", json=examples[name]["value"], headers=tenant.headers)

    assert answer.status_code == 200


def test_importing_the_application_opens_nothing_and_loads_no_torch() -> None:
    program = "import api.main, sys; assert 'torch' not in sys.modules and 'worker' not in sys.modules"

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert result.returncode == 0, result.stderr
