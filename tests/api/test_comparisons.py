"""Comparisons over HTTP: admitted whole, run by a real trainer, cancelled with their members."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from core.db import Database
from tests.api.application import TestClient
from tests.api.bench import Tenant, Worker
from tests.api.service import Service

BASE = {
    "dataset": {"source": "iris"},
    "network": {"family": "mlp", "hidden": [8]},
    "training": {"steps": 40, "batch_size": 30, "evaluate_every": 10},
}
BODY: dict[str, Any] = {"name": "quick", "base": BASE, "vary": {"batch_norm": [True, False]}, "seeds": 2}


@pytest.fixture
def made(service: Service) -> Any:
    return service.post("/v1/comparisons", BODY, 201)


def members(service: Service, comparison: Any) -> list[Any]:
    return service.get(f"/v1/comparisons/{comparison['id']}/members", order="asc")["data"]


def test_a_comparison_is_its_members_seed_by_seed(service: Service, made: Any) -> None:
    jobs = members(service, made)

    assert (made["status"], made["terminal"], made["seeds"]) == ("queued", False, [0, 1])
    assert (made["baseline"], made["metric"]) == ("batch_norm=false", "test/accuracy")
    assert made["members"]["total"] == made["members"]["queued"] == 4
    found = [(job["comparison"]["variant"], job["comparison"]["seed"]) for job in jobs]
    assert found == [(f"batch_norm={value}", seed) for seed in (0, 1) for value in ("true", "false")]
    assert [job["spec"]["training"]["seed"] for job in jobs] == [0, 0, 1, 1]
    assert {job["spec"]["dataset"]["split_seed"] for job in jobs} == {0}
    assert {job["spec"]["publish"] for job in jobs} == {None}
    assert {job["spec"]["priority"] for job in jobs} == {-10}
    assert service.get(f"/v1/jobs/{jobs[0]['id']}/events")["data"][0]["type"] == "status"
    assert service.get(f"/v1/comparisons/{made['id']}") == made
    assert [item["id"] for item in service.get("/v1/comparisons")["data"]] == [made["id"]]
    assert service.get("/v1/comparisons", name="other")["data"] == []


def test_its_members_run_to_a_report_in_every_format(service: Service, made: Any) -> None:
    for _ in range(4):
        service.run()

    ended = service.get(f"/v1/comparisons/{made['id']}")
    report = service.get(f"/v1/comparisons/{made['id']}/report")
    figures = report["figures"]

    assert (ended["status"], ended["members"]["succeeded"], ended["progress"]["fraction"]) == ("succeeded", 4, 1.0)
    assert (report["complete"], figures["missing"]) == (True, [])
    assert [variant["seeds"] for variant in figures["variants"]] == [[0, 1], [0, 1]]
    assert [point["step"] for point in figures["curves"][0]["points"]] == [10, 20, 30, 40]
    assert figures["variants"][1]["difference"] is None
    assert figures["variants"][0]["difference"]["final"]["n"] == 2
    assert figures["variants"][1]["reached"] == figures["variants"][1]["targeted"] == 2
    assert report["timing"][0]["training_seconds"]["n"] == 2


@pytest.mark.parametrize(
    ("suffix", "media_type", "beginning"),
    [
        ("csv", "text/csv; charset=utf-8", "variant,baseline"),
        ("md", "text/markdown; charset=utf-8", "# quick"),
        ("svg", "image/svg+xml", "<svg"),
        ("html", "text/html; charset=utf-8", "<!doctype html>"),
    ],
)
def test_a_report_that_has_nothing_yet_says_so(
    client: TestClient, tenant: Tenant, suffix: str, media_type: str, beginning: str
) -> None:
    made = client.post("/v1/comparisons", json=BODY, headers=tenant.headers).json()

    answer = client.get(f"/v1/comparisons/{made['id']}/report.{suffix}", headers=tenant.headers)
    again = client.get(f"/v1/comparisons/{made['id']}/report.{suffix}", headers=tenant.headers)

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, media_type)
    assert answer.text.startswith(beginning)
    assert answer.content == again.content
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_regression_is_compared_by_its_error(service: Service) -> None:
    base = {
        "dataset": {"source": "diabetes"},
        "network": {"family": "mlp", "hidden": [8]},
        "training": {"steps": 30, "evaluate_every": 10},
    }
    made = service.post("/v1/comparisons", {"base": base, "vary": {"batch_norm": [True, False]}, "seeds": 1}, 201)
    for _ in range(2):
        service.run()

    report = service.get(f"/v1/comparisons/{made['id']}/report")
    figures, members = report["figures"], service.get(f"/v1/comparisons/{made['id']}/members", order="asc")["data"]

    assert (figures["metric"], figures["higher_is_better"]) == ("test/rmse", False)
    assert [variant["served"]["mean"] for variant in figures["variants"]] == [job["result"]["rmse"] for job in members]
    assert figures["variants"][0]["gap"]["n"] == 0
    assert "one seed: no interval" in report["sentence"]


def test_a_comparison_sent_many_times_with_one_key_is_made_once(client: TestClient, tenant: Tenant) -> None:
    headers = tenant.headers | {"Idempotency-Key": "k"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/comparisons", json=BODY, headers=headers), range(8)))

    written_otherwise = BODY | {"baseline": "batch_norm=false", "seeds": [0, 1], "metric": "test/accuracy"}
    same = client.post("/v1/comparisons", json=written_otherwise, headers=headers)
    other = client.post("/v1/comparisons", json=BODY | {"seeds": 3}, headers=headers)

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in [*answers, same]}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert len(client.get("/v1/jobs", headers=tenant.headers).json()["data"]) == 4
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_a_cancel_ends_waiting_members_and_tells_running_ones(service: Service, database: Database, made: Any) -> None:
    worker = Worker(database)

    told = service.post(f"/v1/comparisons/{made['id']}/cancel", expected=202)
    again = service.post(f"/v1/comparisons/{made['id']}/cancel")
    worker.end("cancelled")
    after = service.get(f"/v1/comparisons/{made['id']}")

    assert (told["status"], again["status"], after["status"]) == ("cancelling", "cancelling", "cancelled")
    assert told["members"]["cancelled"] == 3
    assert after["members"]["cancelled"] == 4
    for job in members(service, made):
        log = service.get(f"/v1/jobs/{job['id']}/events", order="asc")["data"]
        assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
        assert log[-1]["type"] == "end"


def test_a_comparison_that_has_ended_can_not_be_cancelled(
    client: TestClient, tenant: Tenant, database: Database
) -> None:
    made = client.post("/v1/comparisons", json=BODY | {"seeds": 1}, headers=tenant.headers).json()
    for _ in range(2):
        Worker(database).end(result={})

    answer = client.post(f"/v1/comparisons/{made['id']}/cancel", headers=tenant.headers)

    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_a_diverged_member_is_a_result(service: Service, database: Database, made: Any) -> None:
    Worker(database).end("failed", error={"code": "non_finite_loss", "message": "the loss of step 3 is nan"})
    Worker(database).end("failed", error={"code": "storage_error", "message": "full"})

    counts = service.get(f"/v1/comparisons/{made['id']}")["members"]
    figures = service.get(f"/v1/comparisons/{made['id']}/report")["figures"]

    assert (counts["diverged"], counts["failed"], counts["queued"]) == (1, 1, 2)
    assert [(member["variant"], member["seed"]) for member in figures["diverged"]] == [("batch_norm=true", 0)]
    assert [member["outcome"] for member in figures["missing"]] == ["queued", "failed", "queued"]


def test_a_retried_member_stands_for_the_one_that_failed(service: Service, database: Database, made: Any) -> None:
    worker = Worker(database)
    worker.end("failed", error={"code": "storage_error", "message": "full"})

    retry = service.post(f"/v1/jobs/{worker.job_id}/retry", expected=201)
    here = service.get(f"/v1/comparisons/{made['id']}")

    assert retry["comparison"] == {"comparison_id": made["id"], "variant": "batch_norm=true", "seed": 0}
    assert (here["members"]["total"], here["members"]["failed"], here["members"]["queued"]) == (4, 0, 4)
    assert len(members(service, made)) == 5


@pytest.mark.parametrize(
    ("change", "pointer", "words"),
    [
        ({"vary": {}}, "/vary", "name a path"),
        ({"vary": {"batch_nrom": [True]}}, "/vary/batch_nrom", "did you mean batch_norm?"),
        ({"vary": {"optimzer.learning_rate": [1.0]}}, "/vary/optimzer.learning_rate", "optimizer.learning_rate"),
        ({"vary": {"optimizer.learnin_rate": [1.0]}}, "/vary/optimizer.learnin_rate", "did you mean learning_rate?"),
        ({"vary": {"optimizer.learning_rate": [0.1, -1.0]}}, "/vary/optimizer.learning_rate", "learning_rate=-1.0"),
        ({"vary": {"training.seed": [1, 2]}}, "/vary/training.seed", "seeds"),
        ({"vary": {"batch_norm": [True, True]}}, "/vary/batch_norm", "twice"),
        ({"vary": {"batch_norm": True}}, "/vary/batch_norm", "list"),
        ({"vary": {"batch_norm": [True], "batch_norm.eps": [0.1]}}, "/vary/batch_norm.eps", "within batch_norm"),
        ({"vary": {"name.first": ["a"]}}, "/vary/name.first", "named after"),
        ({"vary": {"dataset.source.x": [1]}}, "/vary/dataset.source.x", "no fields"),
        ({"vary": {"network.hidden.3": [1]}}, "/vary/network.hidden.3", "no place in a list of 1"),
        ({"vary": {"variants": {"a": {"nothing": 1}}}}, "/vary/variants/a/nothing", "no field"),
        ({"vary": {"variants": {"a": 3}}}, "/vary/variants/a", "object"),
        ({"vary": {"variants": {"a": {"training.steps": 0}, "b": {}}}}, "/vary/variants/a/training.steps", '"a"'),
        ({"base": BASE | {"trainig": {}}}, "/base/trainig", "did you mean training?"),
        ({"base": BASE | {"publish": {"model": "m"}}}, "/base/publish", "set it there"),
        ({"base": BASE | {"training": {"seed": "x"}}}, "/base/training/seed", "whole number"),
        ({"base": []}, "/base", "must be"),
        ({"seeds": [1, 1]}, "/seeds", "twice"),
        ({"seeds": 0}, "/seeds", "from 1 on"),
        ({"seeds": 999}, "/seeds", "1998 jobs"),
        ({"vary": {"training.batch_size": list(range(2, 900))}}, "/vary", "898 variants"),
        ({"baseline": "other"}, "/baseline", "batch_norm=false"),
        ({"metric": "test/rmse"}, "/metric", "accuracy"),
        ({"target": "best"}, "/target", "baseline_best"),
        ({"sedes": 3}, "/sedes", "did you mean seeds?"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("/") else "",
)
def test_a_comparison_that_can_not_run_points_at_its_field_and_queues_nothing(
    client: TestClient, tenant: Tenant, change: dict[str, Any], pointer: str, words: str
) -> None:
    for path in ("/v1/comparisons", "/v1/comparisons:validate"):
        answer = client.post(path, json=BODY | change, headers=tenant.headers)

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec"), answer.text
        found = [error["message"] for error in answer.json()["errors"] if error["pointer"] == pointer]
        assert any(words in message for message in found), answer.json()["errors"]
    assert client.get("/v1/jobs", headers=tenant.headers).json()["data"] == []


def test_a_dry_run_tells_the_members_and_what_they_cost(client: TestClient, tenant: Tenant) -> None:
    plan = client.post("/v1/comparisons:validate", json=BODY, headers=tenant.headers).json()

    assert (plan["valid"], plan["members"], plan["baseline"]) == (True, 4, "batch_norm=false")
    assert [variant["changes"] for variant in plan["variants"]] == [{"batch_norm": True}, {"batch_norm": False}]
    assert plan["estimated_seconds"] == pytest.approx(
        2 * sum(variant["estimated_seconds"] for variant in plan["variants"]), abs=0.01
    )
    assert client.get("/v1/jobs", headers=tenant.headers).json()["data"] == []


def test_a_strangers_comparison_is_not_there(client: TestClient, tenant: Tenant, stranger: Tenant) -> None:
    made = client.post("/v1/comparisons", json=BODY, headers=stranger.headers).json()
    path = f"/v1/comparisons/{made['id']}"

    for method, url in [
        ("GET", path),
        ("POST", f"{path}/cancel"),
        ("GET", f"{path}/members"),
        ("GET", f"{path}/report"),
        ("GET", f"{path}/report.svg"),
    ]:
        assert client.request(method, url, headers=tenant.headers).status_code == 404
    assert client.get("/v1/comparisons", headers=tenant.headers).json()["data"] == []
    assert client.get("/v1/comparisons", params={"after": made["id"]}, headers=tenant.headers).status_code == 422


def test_pages_of_comparisons_hold_each_once(client: TestClient, tenant: Tenant) -> None:
    made = [client.post("/v1/comparisons", json=BODY, headers=tenant.headers).json()["id"] for _ in range(3)]

    first = client.get("/v1/comparisons", params={"limit": 2}, headers=tenant.headers).json()
    second = client.get("/v1/comparisons", params={"after": first["last_id"]}, headers=tenant.headers).json()

    assert [item["id"] for item in first["data"] + second["data"]] == made[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)


def test_members_publish_when_they_are_told_to(service: Service) -> None:
    made = service.post("/v1/comparisons", BODY | {"publish": {"alias": "latest"}, "seeds": 1}, 201)

    published = [job["spec"]["publish"] for job in members(service, made)]

    assert published == [
        {"model": "quick-batch_norm-true", "alias": "latest", "serving": None},
        {"model": "quick-batch_norm-false", "alias": "latest", "serving": None},
    ]
