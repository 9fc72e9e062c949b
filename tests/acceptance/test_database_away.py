"""Requests while Postgres is away: refused as a problem that passes, and stored whole or not at all."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from evenkeel import Client
from tests.acceptance.service import Service, wait_until
from tests.servers import Postgres, fresh_database

pytestmark = pytest.mark.timeout(300)  # whole services on a machine that may be busy

SPEC = {
    "dataset": {"source": "iris"},
    "network": {"family": "mlp", "hidden": [4]},
    "training": {"steps": 5, "batch_size": 16},
    "publish": None,
}


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture
def service(postgres: Postgres, tmp_path: Path) -> Iterator[Service]:
    with fresh_database(postgres.url) as url:
        service = Service(tmp_path / "home", {"EVENKEEL_DATABASE_URL": url})
        service.start()
        yield service
        service.stop()


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    key = (service.home / "admin-key").read_text().strip()
    with httpx.Client(
        base_url=f"http://127.0.0.1:{service.port}", headers={"Authorization": f"Bearer {key}"}, timeout=30
    ) as client:
        yield client


def is_a_problem_that_passes(answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert (answer.json()["code"], answer.json()["retryable"]) == ("unavailable", True)


def test_requests_are_refused_with_a_time_to_come_back_and_work_again_afterwards(
    postgres: Postgres, service: Service, http: httpx.Client
) -> None:
    before = http.post("/v1/jobs", json=SPEC).json()["id"]

    postgres.stop()
    for answer in (
        http.post("/v1/jobs", json=SPEC | {"name": "refused"}),
        http.get("/v1/jobs"),
        http.get(f"/v1/jobs/{before}"),
        http.post(f"/v1/jobs/{before}/cancel"),
    ):
        is_a_problem_that_passes(answer)
    assert http.get("/healthz").status_code == 200
    postgres.restart()

    client = service.client()
    assert client.jobs(name="refused") == []
    assert client.wait(before, 60).status == "succeeded"
    assert client.wait(client.submit(SPEC), 60).status == "succeeded"


def test_what_is_posted_while_the_database_falls_over_is_stored_whole_or_not_at_all(
    postgres: Postgres, service: Service, http: httpx.Client
) -> None:
    answers: dict[str, int] = {}
    over = threading.Event()

    def post() -> None:
        while not over.wait(0.05):
            key = f"key-{len(answers)}"
            body = SPEC | {"name": "whole"}
            answers[key] = http.post("/v1/jobs", json=body, headers={"Idempotency-Key": key}).status_code

    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    for _ in range(2):
        wait_for_another(answers, 201)
        postgres.stop()
        wait_for_another(answers, 503)
        postgres.restart()
    wait_for_another(answers, 201)
    over.set()
    thread.join()

    assert set(answers.values()) == {201, 503}
    again = {
        http.post("/v1/jobs", json=SPEC | {"name": "whole"}, headers={"Idempotency-Key": key}).json()["id"]
        for key in answers
    }
    client = service.client()
    stored = client.jobs(name="whole", limit=10_000)
    assert {job.id for job in stored} == again
    assert len(stored) == len(answers)
    are_whole(client, [job.id for job in stored])


def wait_for_another(answers: dict[str, int], status: int) -> None:
    seen = list(answers.values()).count(status)
    wait_until(lambda: list(answers.values()).count(status) > seen)


def are_whole(client: Client, ids: list[str]) -> None:
    for job_id in ids:
        events = client.events(job_id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert events[0].type == "status"
