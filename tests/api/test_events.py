"""Pages and long polls of a job's log."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from core.db import Database
from core.queries.events import EventDraft
from tests.api.application import TestClient
from tests.api.bench import Tenant, Worker
from tests.api.live import Live, eventually


def seqs(page: Any) -> list[int]:
    return [event["seq"] for event in page["data"]]


@pytest.fixture
def worker(tenant: Tenant, database: Database) -> Worker:
    """Its job has events 1 (queued), 2 (running) and 3 to 10 (log)."""
    tenant.job()
    worker = Worker(database)
    worker.log(8)
    return worker


@pytest.mark.parametrize(
    ("query", "expected", "has_more"),
    [
        ("", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], False),
        ("limit=3", [1, 2, 3], True),
        ("after=3&limit=3", [4, 5, 6], True),
        ("after=8", [9, 10], False),
        ("after=10", [], False),
        ("before=4", [1, 2, 3], False),
        ("before=8&limit=2", [6, 7], True),
        ("after=2&before=6&limit=2", [3, 4], True),
        ("order=desc&limit=2", [10, 9], True),
        ("order=desc&before=3", [2, 1], False),
    ],
)
def test_a_page_is_cut_by_seq(
    client: TestClient, tenant: Tenant, worker: Worker, query: str, expected: list[int], has_more: bool
) -> None:
    page = client.get(f"/v1/jobs/{worker.job_id}/events?{query}", headers=tenant.headers).json()

    assert (seqs(page), page["has_more"]) == (expected, has_more)
    assert (page["first_id"], page["last_id"]) == ((expected[0], expected[-1]) if expected else (None, None))


def test_an_event_has_all_its_fields(client: TestClient, tenant: Tenant, worker: Worker) -> None:
    event = client.get(f"/v1/jobs/{worker.job_id}/events?after=2&limit=1", headers=tenant.headers).json()["data"][0]

    assert event.pop("created_at").endswith("Z")
    assert event == {
        "object": "event",
        "job_id": worker.job_id,
        "seq": 3,
        "type": "log",
        "level": "info",
        "message": "line 0",
        "attempt": 1,
        "data": {"step": 0},
    }


def test_log_lines_come_as_json_or_as_text(client: TestClient, tenant: Tenant, worker: Worker) -> None:
    path = f"/v1/jobs/{worker.job_id}/logs"

    page = client.get(f"{path}?after=8", headers=tenant.headers).json()
    text = client.get(f"{path}?after=8", headers=tenant.headers | {"Accept": "text/plain"})

    assert [(line["seq"], line["message"], line["step"]) for line in page["data"]] == [
        (9, "line 6", 6),
        (10, "line 7", 7),
    ]
    assert [line.split(" ", 1)[1] for line in text.text.splitlines()] == ["INFO line 6", "INFO line 7"]


def test_a_long_poll_answers_at_once_when_something_is_there(
    client: TestClient, tenant: Tenant, worker: Worker
) -> None:
    began = time.monotonic()

    page = client.get(f"/v1/jobs/{worker.job_id}/events?after=9&wait=30", headers=tenant.headers).json()

    assert seqs(page) == [10]
    assert time.monotonic() - began < 5


def test_a_long_poll_hears_what_is_committed_meanwhile(live: Live, tenant: Tenant, worker: Worker) -> None:
    url = f"{live.url}/v1/jobs/{worker.job_id}/events?after=10&wait=30"
    with ThreadPoolExecutor(1) as pool:
        polling = pool.submit(httpx.get, url, headers=tenant.headers, timeout=40)
        eventually(lambda: listeners(live) == 1, "the poll listens")
        worker.tick(EventDraft("log", "new", {"step": 9}))
        page = polling.result(10).json()

    assert seqs(page) == [11]
    assert listeners(live) == 0


def test_a_long_poll_ends_empty_when_its_time_is_up(live: Live, tenant: Tenant, worker: Worker) -> None:
    page = httpx.get(f"{live.url}/v1/jobs/{worker.job_id}/events?after=10&wait=0.3", headers=tenant.headers).json()

    assert (seqs(page), page["has_more"]) == ([], False)


def test_a_long_poll_of_an_ended_job_does_not_wait(client: TestClient, tenant: Tenant, worker: Worker) -> None:
    worker.end(result={})
    began = time.monotonic()

    page = client.get(f"/v1/jobs/{worker.job_id}/events?after=12&wait=60", headers=tenant.headers).json()

    assert seqs(page) == []
    assert time.monotonic() - began < 5


def test_a_long_poll_holds_no_connection(live: Live, tenant: Tenant, worker: Worker) -> None:
    url = f"{live.url}/v1/jobs/{worker.job_id}/events?after=10&wait=30"
    with ThreadPoolExecutor(30) as pool:
        polls = [pool.submit(httpx.get, url, headers=tenant.headers, timeout=40) for _ in range(30)]
        eventually(lambda: listeners(live) == 30, "all polls listen")
        eventually(lambda: live.resources.database.borrowed_connections() == 0, "no connection is held")
        worker.tick(EventDraft("log", "new", {"step": 9}))
        assert [seqs(poll.result(10).json()) for poll in polls] == [[11]] * 30


def test_nobody_polls_the_database_when_nobody_listens(live: Live, tenant: Tenant, worker: Worker) -> None:
    httpx.get(f"{live.url}/v1/jobs/{worker.job_id}/events?after=10&wait=0.2", headers=tenant.headers)

    eventually(lambda: live.resources.streams._poller is not None and live.resources.streams._poller.done(), "it ends")


@pytest.mark.parametrize(
    "query", ["wait=61", "wait=-1", "limit=0", "limit=1001", "after=-1", f"after={2**63}", "after=x"]
)
def test_a_query_out_of_bounds_is_refused(client: TestClient, tenant: Tenant, worker: Worker, query: str) -> None:
    assert client.get(f"/v1/jobs/{worker.job_id}/events?{query}", headers=tenant.headers).status_code == 422


def listeners(live: Live) -> int:
    topics = list(live.resources.streams._topics.values())
    return sum(topic.listeners for topic in topics)
