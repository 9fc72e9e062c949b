"""Aliases: history, rollback, a share for a second version, copies to a third."""

from collections import Counter
from typing import Any

import pytest

from core.artifacts import ArtifactStore
from tests.api.application import TestClient
from tests.api.bench import Tenant, classifier, publish
from tests.api.live import eventually

ALIAS = "/v1/models/flowers/aliases/live"
ROWS = {"rows": [[1.0, 2.0, 3.0, 4.0]]}


@pytest.fixture(autouse=True)
def flowers(tenant: Tenant, store: ArtifactStore) -> None:
    for number in (1, 2, 3):
        publish(tenant, store, "flowers", *classifier(seed=number), number=number)


def put(client: TestClient, tenant: Tenant, **body: Any) -> Any:
    return client.put(ALIAS, json=body, headers=tenant.headers)


def answering(client: TestClient, tenant: Tenant) -> int:
    answer = client.post("/v1/models/flowers/predict?alias=live", json=ROWS, headers=tenant.headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["evenkeel-model-version"] == str(answer.json()["version"])
    return int(answer.json()["version"])


def test_an_alias_keeps_its_history_and_goes_back(client: TestClient, tenant: Tenant) -> None:
    for version in (1, 2, 3):
        put(client, tenant, version=version)
        assert answering(client, tenant) == version

    back = client.post(f"{ALIAS}/rollback", headers=tenant.headers)

    assert (back.status_code, back.json()["version"], answering(client, tenant)) == (200, 2, 2)
    history = client.get(f"{ALIAS}/history", headers=tenant.headers).json()
    assert [(move["version"], move["reason"]) for move in history["data"]] == [
        (2, "rolled_back"),
        (3, "moved"),
        (2, "moved"),
        (1, "moved"),
    ]
    assert client.get(f"{ALIAS}/history?limit=1", headers=tenant.headers).json()["has_more"] is True


def test_a_deleted_alias_keeps_its_history(client: TestClient, tenant: Tenant) -> None:
    put(client, tenant, version=1)
    client.delete(ALIAS, headers=tenant.headers)

    history = client.get(f"{ALIAS}/history", headers=tenant.headers).json()["data"]

    assert [(move["version"], move["reason"]) for move in history] == [(None, "deleted"), (1, "moved")]
    assert client.post(f"{ALIAS}/rollback", headers=tenant.headers).status_code == 404


def test_there_is_no_way_back_from_the_first_version(client: TestClient, tenant: Tenant) -> None:
    put(client, tenant, version=1)

    assert client.post(f"{ALIAS}/rollback", headers=tenant.headers).status_code == 409


def test_an_alias_does_not_move_to_a_version_that_can_not_be_loaded(
    client: TestClient, tenant: Tenant, store: ArtifactStore
) -> None:
    put(client, tenant, version=1)
    store.put(publish(tenant, store, "flowers", *classifier(seed=9), number=4), b"not what was published")

    answer = put(client, tenant, version=4)

    assert (answer.status_code, answering(client, tenant)) == (503, 1)


def test_a_canary_answers_its_share(client: TestClient, tenant: Tenant) -> None:
    put(client, tenant, version=1, canary={"version": 2, "weight": 0.3})

    counts = Counter(answering(client, tenant) for _ in range(300))

    assert set(counts) == {1, 2}
    assert 50 < counts[2] < 130  # 90 expected; 5 standard deviations are 40
    metrics = client.get("/metrics").text
    assert f'evenkeel_inference_rows_total{{model="flowers",version="2"}} {counts[2]}.0' in metrics
    put(client, tenant, version=2)
    assert {answering(client, tenant) for _ in range(20)} == {2}


@pytest.mark.parametrize("weight", [0, 1, -0.5, 1.5, "0.1"])
def test_a_share_that_is_none_is_refused(client: TestClient, tenant: Tenant, weight: Any) -> None:
    assert put(client, tenant, version=1, canary={"version": 2, "weight": weight}).status_code == 422


def test_a_shadow_gets_copies_and_its_answers_are_only_compared(client: TestClient, tenant: Tenant) -> None:
    put(client, tenant, version=1, shadow=2)

    def report() -> Any:
        return client.get(f"{ALIAS}/shadow", headers=tenant.headers).json()

    assert {answering(client, tenant) for _ in range(20)} == {1}
    eventually(lambda: report()["requests"] + report()["skipped"] == 20, "all copies are compared")
    found = report()
    assert (found["version"], found["shadow"], found["rows"]) == (1, 2, found["requests"])
    assert found["largest_difference"] == pytest.approx(found["mean_difference"], rel=10)
    assert found["largest_difference"] > 0


def test_a_shadow_of_the_same_weights_never_differs(client: TestClient, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "flowers", *classifier(seed=1), number=4)
    put(client, tenant, version=1, shadow=4)
    answering(client, tenant)

    eventually(
        lambda: client.get(f"{ALIAS}/shadow", headers=tenant.headers).json()["rows"] == 1, "the copy is compared"
    )
    found = client.get(f"{ALIAS}/shadow", headers=tenant.headers).json()

    assert (found["disagreements"], found["largest_difference"]) == (0, 0.0)
