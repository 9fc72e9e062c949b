"""Nobody sees, hears or changes what is another tenant's; a key does only what its scopes allow."""

import time

import pytest

from core.artifacts import ArtifactStore
from core.credentials import ALL_SCOPES
from tests.api.application import TestClient
from tests.api.bench import Tenant, classifier, publish
from tests.api.test_problems import filled, is_problem, operations

WITHOUT_A_BODY = ("/cancel", "/pause", "/resume", "/retry", "/verify")


def test_a_strangers_thing_is_not_found_by_any_route(
    client: TestClient, tenant: Tenant, stranger: Tenant, store: ArtifactStore
) -> None:
    publish(stranger, store, "theirs", *classifier(), number=1)
    key_id = "key_" + stranger.key.split("_")[1]
    with_ids = [(method, path) for method, path in operations(client) if "{" in path]
    body = {"rows": [[1, 2, 3, 4]]}

    for method, path in with_ids:
        content = {"version": 1} if method == "PUT" else None if path.endswith(WITHOUT_A_BODY) else body
        url = filled(path, stranger.job(), "theirs", key_id)
        answer = client.request(method, url, json=content, headers=tenant.headers)

        assert answer.status_code == 404, (method, path, answer.text)
        assert is_problem(answer)
    assert len(with_ids) >= 20


def test_lists_hold_only_what_is_the_tenants_own(
    client: TestClient, tenant: Tenant, stranger: Tenant, store: ArtifactStore
) -> None:
    publish(stranger, store, "theirs", *classifier(), number=1)

    assert client.get("/v1/jobs", headers=tenant.headers).json()["data"] == []
    assert client.get("/v1/models", headers=tenant.headers).json()["data"] == []
    assert len(client.get("/v1/keys", headers=tenant.headers).json()["data"]) == 1


def test_a_key_without_a_scope_is_told_which_one_it_lacks(client: TestClient, tenant: Tenant) -> None:
    key = tenant.new_key(())

    for method, path in operations(client):
        url = filled(path, "job_1", "model", "key_1")
        answer = client.request(method, url, headers={"Authorization": f"Bearer {key}"})

        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
        assert any(scope in answer.text for scope in ALL_SCOPES)


def test_a_revoked_key_ends_at_once_in_this_process(client: TestClient, tenant: Tenant) -> None:
    made = client.post("/v1/keys", json={"name": "shop", "scopes": ["jobs:read"]}, headers=tenant.headers).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    before = client.get("/v1/jobs", headers=headers).status_code

    revoked = client.delete(f"/v1/keys/{made['id']}", headers=tenant.headers)
    again = client.delete(f"/v1/keys/{made['id']}", headers=tenant.headers)

    assert (before, client.get("/v1/jobs", headers=headers).status_code) == (200, 401)
    assert revoked.json()["revoked_at"] is not None
    assert again.json() == revoked.json()


def test_a_key_that_expires_is_unknown_after(client: TestClient, tenant: Tenant) -> None:
    key = tenant.new_key(("jobs:read",), expires_at=int((time.time() - 1) * 1e6))

    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 401


def test_a_key_is_shown_once(client: TestClient, tenant: Tenant) -> None:
    wanted = {"name": "shop", "scopes": ["models:infer"], "expires_at": "2990-01-01T00:00:00Z"}

    made = client.post("/v1/keys", json=wanted, headers=tenant.headers)

    listed = client.get("/v1/keys", headers=tenant.headers)
    assert made.status_code == 201
    assert made.json()["expires_at"] == "2990-01-01T00:00:00.000000Z"
    assert made.json()["key"] not in listed.text
    assert "secret" not in listed.text
    assert [key["name"] for key in listed.json()["data"]] == ["test", "shop"]


def test_a_key_can_not_give_away_what_it_lacks(client: TestClient, tenant: Tenant) -> None:
    key = tenant.new_key(("keys:write",))

    answer = client.post(
        "/v1/keys", json={"name": "more", "scopes": ["jobs:write"]}, headers={"Authorization": f"Bearer {key}"}
    )

    assert answer.status_code == 403
    assert "jobs:write" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a", "scopes": []},
        {"name": "a", "scopes": ["everything"]},
        {"name": "", "scopes": ["jobs:read"]},
        {"name": "a", "scopes": ["jobs:read"], "expires_at": "2990-01-01T00:00:00"},
    ],
)
def test_a_key_request_that_is_wrong_is_refused(client: TestClient, tenant: Tenant, body: dict[str, object]) -> None:
    assert client.post("/v1/keys", json=body, headers=tenant.headers).status_code == 422


def test_using_a_key_is_remembered_coarsely(client: TestClient, tenant: Tenant) -> None:
    client.get("/v1/jobs", headers=tenant.headers)

    used = client.get("/v1/keys", headers=tenant.headers).json()["data"][0]["last_used_at"]

    assert used is not None
