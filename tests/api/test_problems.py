import json
from typing import Any

import pytest

from api.main import create_app
from api.problems import speaks_plainly
from core.artifacts import ArtifactStore
from core.settings import Settings
from tests.api.application import TestClient
from tests.api.bench import Tenant, classifier, publish

KEYED = ("/v1", "/v2/models", "/v2/repository")
HOSTILE = {
    "nothing": b"",
    "no json": b"{",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "nul character": b'{"name":"a\\u0000b","rows":[["\\u0000"]],"scopes":["\\u0000"]}',
    "raw nul": b"\0",
    "lone surrogate": b'{"name":"\\ud800","rows":["\\ud800"],"metadata":{"\\udfff":"x"}}',
    "not utf-8": b'{"name":"\xff"}',
    "beyond 64 bits": b'{"training":{"seed":9223372036854775808},"version":9223372036854775808,"rows":[[1e30]]}',
    "enormous integer": b'{"version":' + b"9" * 5000 + b"}",
    "beyond float": b'{"optimizer":{"learning_rate":1e400},"rows":[[1e400]],"version":1e400}',
    "nan": b'{"optimizer":{"learning_rate":NaN},"rows":[[NaN]],"force":NaN}',
    "infinity": b'{"rows":[[Infinity]],"version":-Infinity}',
    "very deep": b"[" * 100_000,
    "deep and whole": b'{"rows":' + b"[" * 900 + b"]" * 900 + b"}",
    "one name twice": b'{"version":1,"version":2,"rows":[],"rows":[[1]],"name":"a","name":"b"}',
    "wrong types": b'{"version":"1","force":1,"rows":{"0":[1]},"name":[],"scopes":"all","dataset":[],"network":3}',
    "nested rows": b'{"rows":[[[1],[2],[3],[4]]]}',
    "mixed rows": b'{"rows":[[1,2,3,4],{"length":1},null,"x",7]}',
    "booleans": b'{"rows":[[true,false,true,false]]}',
    "objects in rows": b'{"rows":[[{},{},{},{}]]}',
    "surrogate name": '{"metadata":{"\U0001f600":"\U0001f600"}}'.encode(),
}


def operations(client: TestClient) -> list[tuple[str, str]]:
    """Every (method, path) that the interface says it has and wants a key for."""
    paths: dict[str, dict[str, Any]] = client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, found in paths.items() for method in found if path.startswith(KEYED)]


def filled(path: str, job_id: str, model: str, key_id: str) -> str:
    values = {
        "{job_id}": job_id,
        "{name}": model,
        "{version}": "1",
        "{alias}": "latest",
        "{key_id}": key_id,
        "{number}": "1",
    }
    values |= {"{comparison_id}": "cmp_1", "{format}": "md"}
    for name, value in values.items():
        path = path.replace(name, value)
    return path


def is_problem(answer: Any) -> bool:
    body = answer.json()
    if speaks_plainly(answer.request.url.path):
        return isinstance(body["error"], str) and body["request_id"] == answer.headers["X-Request-Id"]
    wanted = {"type", "title", "status", "detail", "instance", "code", "errors", "request_id", "retryable"}
    return (
        answer.headers["Content-Type"] == "application/problem+json"
        and set(body) == wanted
        and body["status"] == answer.status_code
        and body["request_id"] == answer.headers["X-Request-Id"]
    )


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/jobs/", 404, "not_found"),
        ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/no-such-job", 404, "not_found"),
        ("GET", "/v1/jobs/job_00000000000000000000000000", 404, "not_found"),
        ("GET", "/v1/jobs/job_%00", 400, "malformed_request"),
        ("GET", "/v1/jobs?name=%00", 400, "malformed_request"),
        ("GET", "/v1/models/%F0%9F%98%80", 404, "not_found"),
        ("GET", "/v1/models/nothing/versions/99999999999999999999", 422, "invalid_request"),
        ("GET", "/v1/models?after=no.cursor", 422, "invalid_request"),
    ],
)
def test_every_refusal_is_a_problem_document(
    client: TestClient, tenant: Tenant, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path, headers=tenant.headers)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert is_problem(answer)


def test_a_method_that_is_not_there_names_those_that_are(client: TestClient, tenant: Tenant) -> None:
    answer = client.put("/v1/jobs/job_1", headers=tenant.headers)

    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]


def test_no_body_however_hostile_breaks_a_route(client: TestClient, tenant: Tenant, store: Any) -> None:
    publish(tenant, store, "model", *classifier(), number=1)
    writing = [(method, path) for method, path in operations(client) if method in ("POST", "PUT")]

    for method, path in writing:
        for what, body in HOSTILE.items():
            url = filled(path, tenant.job(), "model", "key_unknown")
            answer = client.request(method, url, content=body, headers=tenant.headers)

            assert answer.status_code < 500, (method, path, what, answer.text)
            assert answer.is_success or is_problem(answer), (method, path, what)


@pytest.mark.parametrize("what", ["no json", "not utf-8", "nan", "very deep", "one name twice"])
def test_a_spec_that_is_not_json_is_malformed(client: TestClient, tenant: Tenant, what: str) -> None:
    answer = client.post("/v1/jobs", content=HOSTILE[what], headers=tenant.headers)

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_limit_is_refused_while_it_arrives(
    client: TestClient, tenant: Tenant, settings: Settings, store: ArtifactStore, chunked: bool
) -> None:
    publish(tenant, store, "m", *classifier(), number=1)
    body = b" " * (settings.maximum_body_bytes + 1)
    content = iter([body[:100], body[100:]]) if chunked else body

    answer = client.post("/v1/models/m/predict", content=content, headers=tenant.headers)

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert "EVENKEEL_MAXIMUM_BODY_BYTES" in answer.json()["detail"]
    assert is_problem(answer)


def test_a_spec_of_a_megabyte_is_too_large(client: TestClient, tenant: Tenant) -> None:
    answer = client.post("/v1/jobs", content=json.dumps({"name": "a" * 1_100_000}), headers=tenant.headers)

    assert answer.status_code == 413


@pytest.mark.parametrize("header", ["", "Basic abc", "Bearer ", "Bearer nonsense", "Bearer ek_a_b", "Bearer ek_\xe9_b"])
def test_without_a_good_key_there_is_nothing(client: TestClient, header: str) -> None:
    for method, path in operations(client):
        url = filled(path, "job_1", "model", "key_1")
        answer = client.request(method, url, headers={"Authorization": header.encode("latin-1")})

        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), (method, path)
        assert is_problem(answer)


def test_an_error_of_ours_tells_its_request_id_and_nothing_else(
    client: TestClient, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr("api.routers.jobs.list_jobs", fail)

    answer = client.get("/v1/jobs", headers=tenant.headers)

    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert is_problem(answer)
    assert "secret" not in answer.text


def test_a_database_that_is_away_is_a_503_to_be_tried_again(settings: Settings, tenant: Tenant) -> None:
    from_elsewhere = settings.model_copy(update={"database_url": "sqlite:////nowhere/at/all.sqlite"})

    with TestClient(create_app(from_elsewhere)) as client:
        answer = client.get("/v1/jobs", headers=tenant.headers)

    assert (answer.status_code, answer.json()["retryable"], answer.headers["Retry-After"]) == (503, True, "2")
    assert is_problem(answer)
