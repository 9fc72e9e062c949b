"""Reports on layers over HTTP: of running jobs, of ended ones, and the reason where there are none."""

from typing import Any

from core.queries import layers
from tests.api.application import TestClient
from tests.api.bench import SPEC, Tenant, Worker
from tests.api.service import Service

SUMMARY = dict.fromkeys(("min", "p5", "p25", "p50", "p75", "p95", "max", "mean"), 0.5)
FINE = {"count": 0, "channels": []}


def report(name: str, updates: int) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "batch_norm",
        "channels": 100,
        "statistics": "running_average",
        "n": None,
        "frozen": False,
        "updates": updates,
        "expected_updates": updates,
        "gamma": SUMMARY,
        "beta": None,
        "mean": SUMMARY,
        "variance": SUMMARY,
        "gain": SUMMARY | {"max": None},
        "dead": {"count": 1, "channels": [7]},
        "exploding": FINE,
        "running_average_distance": None,
    }


def record(worker: Worker, step: int, final: bool = False) -> None:
    with worker.database.write() as connection:
        told = [report("hidden1.batch_norm", step), report("hidden2.batch_norm", step)]
        connection.execute(layers.create(job_id=worker.job_id, step=step, final=final, layers=told))


def test_a_running_job_shows_its_newest_report_and_an_earlier_one_on_request(
    client: TestClient, tenant: Tenant
) -> None:
    job_id = tenant.job()
    worker = Worker(tenant.database, job_id)
    for step in (50, 100):
        record(worker, step)

    newest = client.get(f"/v1/jobs/{job_id}/layers", headers=tenant.headers).json()
    earlier = client.get(f"/v1/jobs/{job_id}/layers?step=99", headers=tenant.headers).json()

    assert (newest["step"], newest["steps"], newest["final"], newest["reason"]) == (100, [50, 100], False, None)
    assert [layer["name"] for layer in newest["data"]] == ["hidden1.batch_norm", "hidden2.batch_norm"]
    assert newest["data"][0]["dead"] == {"count": 1, "channels": [7]}
    assert (earlier["step"], earlier["data"][0]["updates"]) == (50, 50)


def test_before_the_first_evaluation_there_is_a_reason(client: TestClient, tenant: Tenant) -> None:
    answer = client.get(f"/v1/jobs/{tenant.job()}/layers", headers=tenant.headers).json()

    assert (answer["data"], answer["step"]) == ([], None)
    assert answer["reason"] == "the first report comes with the first evaluation"


def test_a_job_without_batch_norm_says_so(client: TestClient, tenant: Tenant) -> None:
    for batch_norm in (False, {"kind": "layer"}):
        job_id = client.post("/v1/jobs", json=SPEC | {"batch_norm": batch_norm}, headers=tenant.headers).json()["id"]

        answer = client.get(f"/v1/jobs/{job_id}/layers", headers=tenant.headers).json()

        assert answer["data"] == []
        assert "no layer of this network has statistics" in answer["reason"]


def test_a_step_before_all_kept_reports_says_which_is_the_first(client: TestClient, tenant: Tenant) -> None:
    job_id = tenant.job()
    record(Worker(tenant.database, job_id), 50)

    answer = client.get(f"/v1/jobs/{job_id}/layers?step=3", headers=tenant.headers).json()

    assert (answer["data"], answer["reason"]) == ([], "the first report that is kept is of step 50")


def test_a_job_that_ended_early_says_that_it_did(client: TestClient, tenant: Tenant) -> None:
    job_id = tenant.job()
    Worker(tenant.database, job_id).end("failed")

    answer = client.get(f"/v1/jobs/{job_id}/layers", headers=tenant.headers).json()

    assert answer["reason"] == "the job has failed before its first evaluation"


def test_a_trained_job_keeps_the_reports_of_every_evaluation_and_the_population_at_the_end(service: Service) -> None:
    job = service.trained(SPEC | {"training": {"steps": 60, "evaluate_every": 25}})

    answer = service.get(f"/v1/jobs/{job['id']}/layers")

    assert answer["steps"] == [25, 50, 60]
    assert answer["final"] and answer["data"][0]["statistics"] == "pooled"
    assert answer["data"][0]["updates"] == answer["data"][0]["expected_updates"] == 60
    assert service.get(f"/v1/jobs/{job['id']}/layers", step=50)["data"][0]["statistics"] == "running_average"
