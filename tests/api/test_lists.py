from typing import Any

import pytest

from core.db import Database
from tests.api.application import TestClient
from tests.api.bench import Tenant, Worker


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("direction", ["after", "before"])
def test_pages_walked_either_way_hold_every_job_once(
    client: TestClient, tenant: Tenant, order: str, direction: str
) -> None:
    made = [tenant.job() for _ in range(7)]
    expected = made if order == "asc" else made[::-1]
    params: dict[str, str] = {"limit": "3", "order": order}
    pages = []

    if direction == "before":  # the page before nothing is the last one: start behind the end
        params["before"] = expected[-1]
        pages.append([expected[-1]])
    while True:
        page = client.get("/v1/jobs", params=params, headers=tenant.headers).json()
        ids = [job["id"] for job in page["data"]]
        assert (page["first_id"], page["last_id"]) == (ids[0], ids[-1])
        pages.append(ids)
        if not page["has_more"]:
            break
        params[direction] = page["last_id"] if direction == "after" else page["first_id"]

    walked = pages if direction == "after" else pages[::-1]
    assert [job_id for page in walked for job_id in page] == expected


def test_an_empty_list_has_no_ends(client: TestClient, tenant: Tenant) -> None:
    page = client.get("/v1/jobs", headers=tenant.headers).json()

    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_members_of_comparisons_are_listed_alone_or_left_out(client: TestClient, tenant: Tenant) -> None:
    own = tenant.job()
    base = {"dataset": {"source": "iris"}, "network": {"family": "mlp"}}
    body = {"base": base, "vary": {"batch_norm": [True, False]}, "seeds": 1}
    made, other = (client.post("/v1/comparisons", json=body, headers=tenant.headers).json()["id"] for _ in range(2))

    def found(comparison: str) -> list[dict[str, Any]]:
        answer = client.get("/v1/jobs", params={"comparison": comparison}, headers=tenant.headers)
        return list(answer.json()["data"])

    assert [job["id"] for job in found("none")] == [own]
    assert [job["comparison"]["comparison_id"] for job in found(made)] == [made, made]
    assert [job["comparison"]["comparison_id"] for job in found(other)] == [other, other]
    assert found("cmp_nobody") == []
    refused = client.get("/v1/jobs", params={"comparison": "rates"}, headers=tenant.headers)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/query/comparison")
    assert "give an id" in refused.json()["detail"]


def test_filters_choose_by_status_family_name_metadata_and_time(
    client: TestClient, tenant: Tenant, database: Database
) -> None:
    first = tenant.job(metadata={"team": "vision", "a.b": "c"}, name="one")
    Worker(database)
    second = tenant.job(family="convnet", metadata={"team": "speech"})
    middle = client.get(f"/v1/jobs/{second}", headers=tenant.headers).json()["created_at"]

    def found(**params: str) -> list[str]:
        return [job["id"] for job in client.get("/v1/jobs", params=params, headers=tenant.headers).json()["data"]]

    assert found(status="running") == [first]
    assert found(status="running,queued") == [second, first]
    assert found(family="convnet") == [second]
    assert found(name="one") == [first]
    assert found(**{"metadata[team]": "vision", "metadata[a.b]": "c"}) == [first]
    assert found(**{"metadata[team]": "vision", "metadata[a.b]": "d"}) == []
    assert found(created_before=middle) == [first]
    assert found(created_after="2020-01-01T00:00:00+02:00") == [second, first]
    assert found(created_after="2990-01-01T00:00:00Z") == []


def test_latest_metrics_come_only_when_asked_for(client: TestClient, tenant: Tenant, database: Database) -> None:
    tenant.job()
    Worker(database).record("train/loss", [1], [0.5])

    plain = client.get("/v1/jobs", headers=tenant.headers).json()["data"][0]
    rich = client.get("/v1/jobs?include=latest_metrics", headers=tenant.headers).json()["data"][0]

    assert plain["latest_metrics"] is None
    assert rich["latest_metrics"] == {"train/loss": 0.5}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/query/limit"),
        ("limit=101", "/query/limit"),
        ("after=job_1&before=job_2", "/query/before"),
        ("after=job_unknown", "/query/after"),
        ("status=runing", "/query/status"),
        ("statuss=running", "/query/statuss"),
        ("created_after=yesterday", "/query/created_after"),
        ("metadata=x", "/query/metadata"),
        ("order=up", "/query/order"),
    ],
)
def test_a_query_that_is_wrong_says_where(client: TestClient, tenant: Tenant, query: str, pointer: str) -> None:
    answer = client.get(f"/v1/jobs?{query}", headers=tenant.headers)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_a_strangers_job_is_no_cursor(client: TestClient, tenant: Tenant, stranger: Tenant) -> None:
    answer = client.get("/v1/jobs", params={"after": stranger.job()}, headers=tenant.headers)

    assert answer.status_code == 422
