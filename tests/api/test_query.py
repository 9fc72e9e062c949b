"""Parameters that a route does not know, and bodies where none is taken, are refused: they would be ignored."""

import pytest

from core.artifacts import ArtifactStore
from tests.api.application import TestClient
from tests.api.bench import Tenant, classifier, publish


def test_every_route_of_v1_but_predict_knows_its_query(client: TestClient, tenant: Tenant) -> None:
    """Give a router that is missing here `dependencies=[KNOWN_QUERY]`."""
    paths = client.get("/openapi.json").json()["paths"]
    operations = [(method, path) for path, methods in paths.items() for method in methods if path.startswith("/v1/")]
    careless = []
    for method, path in operations:
        answer = client.request(method, f"{path}?surely_unknown=1", headers=tenant.headers, json={})
        if "unknown_parameter" not in [part["code"] for part in answer.json().get("errors", [])]:
            careless.append((method, path))

    assert len(operations) > 20
    assert [
        path for _, path in careless if not path.endswith("predict")
    ] == []  # those of TensorFlow Serving are not ours


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("/v1/models/digits/download?fromat=card", "did you mean format?"),
        ("/v1/models/digits/population?channel=true", "did you mean channels?"),
        ("/v1/models?limti=3", "did you mean limit?"),
        ("/v1/jobs?metadta[team]=vision", "did you mean metadata[key]?"),
        ("/v1/models?zzz=1", "leave it out; known here are limit, after, before, order"),
        ("/v1/jobs?nmae=digits", "did you mean name?"),
        ("/v1/architectures?family=mlp", "leave it out; this route takes none"),
    ],
)
def test_a_mistyped_parameter_is_refused_with_the_one_that_was_meant(
    client: TestClient, tenant: Tenant, path: str, remedy: str
) -> None:
    answer = client.get(path, headers=tenant.headers)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "unknown_parameter"
    assert remedy in answer.json()["detail"]


def test_a_value_that_a_parameter_can_not_have_is_told_in_the_words_of_bodies(
    client: TestClient, tenant: Tenant
) -> None:
    def told(query: str) -> str:
        return str(client.get(f"/v1/jobs?{query}", headers=tenant.headers).json()["errors"][0]["message"])

    assert told("limit=many") == "must be a whole number, not 'many'"
    assert told("limit=1000") == "must be less than or equal to 100, not '1000'"
    assert told("order=up") == "must be 'asc' or 'desc', not 'up'"


def test_predict_knows_its_query_too(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "flowers", *classifier(), number=1)
    rows = {"rows": [[1, 2, 3, 4]]}

    wrong = client.post("/v1/models/flowers/predict?versoin=1", headers=tenant.headers, json=rows)
    both = client.post("/v1/models/flowers/predict?version=1&alias=latest", headers=tenant.headers, json=rows)

    assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (422, "unknown_parameter")
    assert (both.status_code, both.json()["errors"][0]["pointer"]) == (422, "/query/alias")


@pytest.mark.parametrize("action", ["pause", "resume", "retry"])
def test_a_body_that_an_action_would_ignore_is_refused(client: TestClient, tenant: Tenant, action: str) -> None:
    path = f"/v1/jobs/{tenant.job()}/{action}"

    refused = client.post(path, headers=tenant.headers, json={"force": True})
    empty = client.post(path, headers=tenant.headers, json={})

    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "no_body")
    assert empty.status_code != 422


def test_an_empty_body_is_called_empty(client: TestClient, tenant: Tenant) -> None:
    answer = client.post("/v1/jobs", headers=tenant.headers)

    assert (answer.status_code, answer.json()["detail"]) == (400, "the body is empty: send a JSON object")


def test_what_is_not_found_says_what_there_is(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "digits", *classifier(), 1)
    client.put("/v1/models/digits/aliases/latest", headers=tenant.headers, json={"version": 1}).raise_for_status()

    def told(path: str) -> str:
        return str(client.get(path, headers=tenant.headers).json()["detail"])

    assert told("/v1/jobs/job_nope") == "there is no job job_nope: check it against the list of jobs"
    assert told("/v1/models/nope") == "there is no model nope: check it against the list of models"
    assert told("/v1/models/Digits").startswith("there is no model Digits: names are lower-case letters")
    assert told("/v1/models/digits/download?version=7") == "model digits has no version 7: its newest is 1"
    assert told("/v1/models/digits/download?alias=prod") == "model digits has no alias prod: it has latest"
    assert told("/v1/models/digits/aliases/prod") == "model digits has no alias prod: it has latest"


def test_a_version_and_an_alias_exclude_each_other(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "digits", *classifier(), 1)

    answer = client.get("/v1/models/digits/download?version=1&alias=latest", headers=tenant.headers)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/query/alias"
