from concurrent.futures import ThreadPoolExecutor

import pytest

from api.estimate import STEP_OVERHEAD_SECONDS
from core.db import Database
from core.queries import nodes
from tests.api.application import TestClient
from tests.api.bench import SPEC, Tenant, Worker, submit


def test_a_submitted_job_is_queued_with_its_defaults_written_out(client: TestClient, tenant: Tenant) -> None:
    answer = submit(client, tenant)

    job = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["X-Request-Id"].startswith("req_")
    assert (job["object"], job["status"], job["terminal"], job["attempt"]) == ("job", "queued", False, 0)
    assert job["spec"]["training"]["batch_size"] == 60
    assert job["spec"]["publish"] == {"model": "digits-mlp", "alias": "latest", "serving": None}
    assert job["progress"] == {"step": 0, "steps": 100, "fraction": 0.0, "eta_seconds": None}
    assert client.get(f"/v1/jobs/{job['id']}", headers=tenant.headers).json() == job


def test_its_first_event_is_committed_with_it(client: TestClient, tenant: Tenant) -> None:
    job_id = submit(client, tenant).json()["id"]

    page = client.get(f"/v1/jobs/{job_id}/events", headers=tenant.headers).json()

    assert [(event["seq"], event["type"], event["data"]) for event in page["data"]] == [
        (1, "status", {"status": "queued"})
    ]


def test_a_job_for_cuda_says_what_it_waits_for(client: TestClient, tenant: Tenant) -> None:
    job = submit(client, tenant, SPEC | {"resources": {"device": "cuda"}}).json()

    assert job["status_reason"] == "waiting for a worker with a CUDA device"


def test_the_same_idempotency_key_sent_20_times_at_once_makes_one_job(client: TestClient, tenant: Tenant) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: submit(client, tenant, **{"Idempotency-Key": "k"}), range(20)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert len(client.get("/v1/jobs", headers=tenant.headers).json()["data"]) == 1


def test_an_idempotency_key_with_another_body_is_refused(client: TestClient, tenant: Tenant) -> None:
    first = submit(client, tenant, **{"Idempotency-Key": "k"}).json()

    answer = submit(client, tenant, SPEC | {"name": "other"}, **{"Idempotency-Key": "k"})

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert first["id"] in answer.json()["detail"]


def test_an_idempotency_key_counts_within_its_tenant_only(client: TestClient, tenant: Tenant, stranger: Tenant) -> None:
    first = submit(client, tenant, **{"Idempotency-Key": "k"}).json()
    second = submit(client, stranger, **{"Idempotency-Key": "k"}).json()

    assert first["id"] != second["id"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"trainig": {}}, "/trainig"),
        ({"network": {"family": "mlp", "hiden": [3]}}, "/network/hiden"),
        ({"training": {"steps": 0}}, "/training/steps"),
        ({"training": {"batch_size": 1}}, "/training/batch_size"),
        ({"training": {"steps": 10**9}}, "/training/steps"),
        ({"batch_norm": {"momentum": 2}}, "/batch_norm/momentum"),
        ({"metadata": {"a": "\0"}}, "/metadata/a"),
    ],
)
def test_a_spec_that_can_not_run_points_at_its_field(
    client: TestClient, tenant: Tenant, change: dict[str, object], pointer: str
) -> None:
    for path in ("/v1/jobs", "/v1/jobs:validate"):
        answer = client.post(path, json=SPEC | change, headers=tenant.headers)

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
        assert pointer in [error["pointer"] for error in answer.json()["errors"]]


def test_validation_tells_size_and_time_without_a_job(client: TestClient, tenant: Tenant) -> None:
    answer = client.post("/v1/jobs:validate", json=SPEC, headers=tenant.headers).json()

    assert (answer["valid"], answer["estimate"]["basis"]) == (True, "calibrated")
    assert answer["parameters"] == 64 * 100 + 2 * 100 * 100 + 3 * 200 + 100 * 10 + 10
    assert answer["flops_per_step"] == 3 * 60 * 2 * (64 * 100 + 2 * 100 * 100 + 100 * 10)
    assert 0 < answer["estimate"]["seconds"] < 60
    assert client.get("/v1/jobs", headers=tenant.headers).json()["data"] == []


@pytest.mark.parametrize(("gpus", "waits"), [(0, True), (1, False)])
def test_a_job_for_a_gpu_is_told_when_no_worker_has_one(
    client: TestClient, tenant: Tenant, database: Database, gpus: int, waits: bool
) -> None:
    with database.write() as connection:
        connection.execute(nodes.create(id="node_1", host="here", slots=1, gpus=gpus, versions={}))

    answer = client.post(
        "/v1/jobs:validate", json=SPEC | {"resources": {"device": "cuda"}}, headers=tenant.headers
    ).json()

    assert any("no worker that is there has a GPU" in warning for warning in answer["warnings"]) is waits


def test_the_estimate_is_measured_once_a_job_has_succeeded(
    client: TestClient, tenant: Tenant, database: Database
) -> None:
    tenant.job(flops_per_step=20_000_000)
    Worker(database).end(result={"steps_per_second": 50.0, "training_seconds": 2.0})

    answer = client.post("/v1/jobs:validate", json=SPEC, headers=tenant.headers).json()

    arithmetic = (1 / 50.0 - STEP_OVERHEAD_SECONDS) * answer["flops_per_step"] / 20_000_000
    expected = 100 * (arithmetic + STEP_OVERHEAD_SECONDS)
    assert answer["estimate"] == {"seconds": round(expected, 3), "basis": "measured"}


def test_a_running_job_shows_progress_and_latest_metrics(
    client: TestClient, tenant: Tenant, database: Database
) -> None:
    job_id = tenant.job()
    worker = Worker(database)
    worker.record("train/loss", [1, 2], [0.5, float("nan")])
    worker.record("train/accuracy", [1, 2], [0.5, 0.75])
    worker.tick(step=25)
    worker.tick(step=50)

    job = client.get(f"/v1/jobs/{job_id}", headers=tenant.headers).json()

    assert (job["status"], job["phase"], job["attempt"]) == ("running", "loading", 1)
    assert (job["progress"]["step"], job["progress"]["fraction"]) == (50, 0.5)
    assert job["latest_metrics"] == {"train/accuracy": 0.75, "train/loss": None}
    assert job["started_at"].endswith("Z")


def test_a_queued_job_is_cancelled_at_once_and_its_log_ends(client: TestClient, tenant: Tenant) -> None:
    job_id = tenant.job()

    answer = client.post(f"/v1/jobs/{job_id}/cancel", headers=tenant.headers)
    again = client.post(f"/v1/jobs/{job_id}/cancel", headers=tenant.headers)

    log = client.get(f"/v1/jobs/{job_id}/events", headers=tenant.headers).json()["data"]
    assert (answer.status_code, answer.json()["status"], answer.json()["terminal"]) == (202, "cancelled", True)
    assert again.status_code == 200
    assert [event["type"] for event in log] == ["status", "status", "end"]
    assert [event["seq"] for event in log] == [1, 2, 3]


def test_a_running_job_is_told_to_stop_and_force_can_follow(
    client: TestClient, tenant: Tenant, database: Database
) -> None:
    job_id = tenant.job()
    Worker(database)

    answers = [
        client.post(f"/v1/jobs/{job_id}/cancel", headers=tenant.headers),
        client.post(f"/v1/jobs/{job_id}/cancel", headers=tenant.headers),
        client.post(f"/v1/jobs/{job_id}/cancel", json={"force": True}, headers=tenant.headers),
        client.post(f"/v1/jobs/{job_id}/cancel", json={"force": True}, headers=tenant.headers),
    ]

    assert [answer.status_code for answer in answers] == [202, 200, 202, 200]
    assert {answer.json()["status"] for answer in answers} == {"cancelling"}


def test_pause_and_resume_take_their_path(client: TestClient, tenant: Tenant, database: Database) -> None:
    job_id = tenant.job()
    path = f"/v1/jobs/{job_id}"

    too_early = client.post(f"{path}/pause", headers=tenant.headers)
    worker = Worker(database)
    pausing = client.post(f"{path}/pause", headers=tenant.headers)
    again = client.post(f"{path}/pause", headers=tenant.headers)
    not_yet = client.post(f"{path}/resume", headers=tenant.headers)
    worker.put_back("paused")
    paused = client.post(f"{path}/pause", headers=tenant.headers)
    resumed = client.post(f"{path}/resume", headers=tenant.headers)
    resumed_again = client.post(f"{path}/resume", headers=tenant.headers)

    assert (too_early.status_code, "cancel it" in too_early.json()["detail"]) == (409, True)
    assert (pausing.status_code, pausing.json()["status"]) == (202, "pausing")
    assert (again.status_code, not_yet.status_code) == (200, 409)
    assert (paused.status_code, paused.json()["status"]) == (200, "paused")
    assert (resumed.status_code, resumed.json()["status"]) == (202, "queued")
    assert resumed_again.status_code == 200


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
def test_a_succeeded_job_never_changes(client: TestClient, tenant: Tenant, database: Database, action: str) -> None:
    job_id = tenant.job()
    Worker(database).end(result={})

    answer = client.post(f"/v1/jobs/{job_id}/{action}", headers=tenant.headers)

    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "succeeded" in answer.json()["detail"]


def test_a_retry_repeats_only_what_comes_after_training(client: TestClient, tenant: Tenant, database: Database) -> None:
    old = submit(client, tenant).json()["id"]
    worker = Worker(database, old)
    worker.record("train/loss", [1, 2, 3], [3.0, 2.0, float("inf")])
    worker.checkpoint(100, complete=True)
    worker.end("failed", error={"code": "parity_failed", "message": "too far"})

    answer = client.post(f"/v1/jobs/{old}/retry", headers=tenant.headers)

    new = answer.json()
    assert (answer.status_code, new["status"], new["retry_of"]) == (201, "queued", old)
    assert new["progress"]["step"] == 100
    series = [
        client.get(f"/v1/jobs/{job}/metrics", headers=tenant.headers).json()["series"] for job in (old, new["id"])
    ]
    assert series[0] == series[1]
    kept = client.get(f"/v1/jobs/{new['id']}/checkpoints", headers=tenant.headers).json()["data"]
    assert [(item["step"], item["complete"], item["job_id"]) for item in kept] == [(100, True, new["id"])]


def test_a_retry_of_unfinished_training_starts_from_nothing(
    client: TestClient, tenant: Tenant, database: Database
) -> None:
    old = submit(client, tenant).json()["id"]
    worker = Worker(database, old)
    worker.record("train/loss", [1], [3.0])
    worker.checkpoint(50, complete=False)
    worker.end("failed", error={"code": "out_of_memory", "message": "no room"})

    new = client.post(f"/v1/jobs/{old}/retry", headers=tenant.headers).json()

    assert new["progress"]["step"] == 0
    assert client.get(f"/v1/jobs/{new['id']}/metrics", headers=tenant.headers).json()["series"] == {}


def test_only_an_ended_job_is_retried(client: TestClient, tenant: Tenant) -> None:
    answer = client.post(f"/v1/jobs/{tenant.job()}/retry", headers=tenant.headers)

    assert answer.status_code == 409


def test_a_job_shows_its_network(client: TestClient, tenant: Tenant) -> None:
    job_id = submit(client, tenant).json()["id"]

    layers = client.get(f"/v1/jobs/{job_id}/network", headers=tenant.headers).json()["data"]

    assert layers[1]["name"] == "hidden1.linear"
    assert (layers[1]["input_shape"], layers[1]["output_shape"], layers[1]["parameters"]) == ([64], [100], 6400)
