"""Streams behind a real socket: cut, resumed, many at once, left by their readers, ended by a signal."""

import json
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from core.db import Database
from core.queries.events import EventDraft
from tests.api.bench import Tenant, Worker
from tests.api.live import Live, eventually
from tests.api.test_events import listeners

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def worker(tenant: Tenant, database: Database) -> Worker:
    tenant.job()
    return Worker(database)


@contextmanager
def listening(live: Live, tenant: Tenant, job_id: str, **headers: str) -> Iterator[httpx.Response]:
    url = f"{live.url}/v1/jobs/{job_id}/events"
    with httpx.stream("GET", url, headers=tenant.headers | STREAM | headers, timeout=20) as response:
        yield response


def messages(response: httpx.Response) -> Iterator[dict[str, str]]:
    """Fields of each message as the server sent them."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line == "" and fields:
            yield fields
            fields = {}
        elif not line.startswith(":") and line:
            name, _, value = line.partition(": ")
            fields[name] = value


def test_a_stream_tells_all_and_ends_with_end(live: Live, tenant: Tenant, worker: Worker) -> None:
    with listening(live, tenant, worker.job_id) as response:
        received = messages(response)
        first = [next(received), next(received)]
        worker.log(2)
        worker.end(result={})
        rest = list(received)

    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert response.headers["X-Accel-Buffering"] == "no"
    assert [item["id"] for item in first + rest] == ["1", "2", "3", "4", "5", "6"]
    assert [item["event"] for item in first + rest] == ["status", "status", "log", "log", "status", "end"]
    data = json.loads(rest[-1]["data"])
    assert (data["seq"], data["type"], data["data"]) == (6, "end", {"status": "succeeded"})


def test_a_reader_cut_at_random_sees_each_seq_once_and_in_order(live: Live, tenant: Tenant, worker: Worker) -> None:
    dice = random.Random(4)

    def work() -> None:
        for _ in range(60):
            worker.log(dice.randrange(1, 6))
        worker.end(result={})

    thread = threading.Thread(target=work)
    thread.start()
    seen: list[int] = []
    while True:
        with listening(live, tenant, worker.job_id, **{"Last-Event-ID": str(seen[-1] if seen else 0)}) as response:
            cut = dice.randrange(1, 12)
            read = [item for item, _ in zip(messages(response), range(cut), strict=False)]
        seen += [int(item["id"]) for item in read]
        if read and read[-1]["event"] == "end":
            break
    thread.join()

    assert seen == list(range(1, seen[-1] + 1))


def test_a_reader_far_behind_catches_up_from_the_database(live: Live, tenant: Tenant, worker: Worker) -> None:
    for _ in range(13):
        worker.tick(*[EventDraft("log", "x" * 200, {"step": 1})] * 100)
    worker.end(result={})

    with listening(live, tenant, worker.job_id) as response:
        seen = [int(item["id"]) for item in messages(response)]

    assert seen == list(range(1, 1305))


def test_an_ended_job_with_nothing_newer_is_204(live: Live, tenant: Tenant, worker: Worker) -> None:
    worker.end(result={})

    with listening(live, tenant, worker.job_id, **{"Last-Event-ID": "4"}) as done:
        assert done.status_code == 204
    with listening(live, tenant, worker.job_id, **{"Last-Event-ID": "3"}) as left:
        assert [item["event"] for item in messages(left)] == ["end"]


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "9" * 30, "²"])
def test_a_last_event_id_that_is_no_seq_is_malformed(live: Live, tenant: Tenant, worker: Worker, given: str) -> None:
    headers: dict[str, Any] = tenant.headers | STREAM | {"Last-Event-ID": given.encode()}

    answer = httpx.get(f"{live.url}/v1/jobs/{worker.job_id}/events", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


def test_fifty_streams_hold_no_connection_and_hear_the_same(live: Live, tenant: Tenant, worker: Worker) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(listening(live, tenant, worker.job_id)) for _ in range(50)]
        eventually(lambda: listeners(live) == 50, "all listen")
        eventually(lambda: live.resources.database.borrowed_connections() == 0, "no connection is held")

        worker.log(1)
        worker.end(result={})
        heard = [[item["id"] for item in messages(stream)] for stream in streams]

    assert heard == [["1", "2", "3", "4", "5"]] * 50
    eventually(lambda: listeners(live) == 0, "all have left")


def test_a_reader_who_leaves_is_forgotten(live: Live, tenant: Tenant, worker: Worker) -> None:
    with listening(live, tenant, worker.job_id) as response:
        received = messages(response)  # a generator that is dropped closes the connection
        next(received)
        eventually(lambda: listeners(live) == 1, "it listens")

    eventually(lambda: listeners(live) == 0, "it is forgotten")
    eventually(lambda: live.resources.streams._poller is not None and live.resources.streams._poller.done(), "it ends")


def test_a_reader_who_stops_reading_is_given_up(
    live: Live, tenant: Tenant, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.streaming.SEND_SECONDS", 0.2)
    monkeypatch.setattr("api.streaming.RING", 10)
    host, port = live.url.removeprefix("http://").split(":")
    request = (
        f"GET /v1/jobs/{worker.job_id}/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {tenant.key}\r\n\r\n"
    )
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect((host, int(port)))
        reader.sendall(request.encode())
        eventually(lambda: listeners(live) == 1, "it listens")
        for _ in range(8):
            worker.tick(*[EventDraft("log", "x" * 10_000, {"step": 1})] * 100)

        eventually(lambda: listeners(live) == 0, "it is given up")


def test_an_idle_stream_has_a_heartbeat(
    live: Live, tenant: Tenant, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.streaming.HEARTBEAT_SECONDS", 0.2)

    with listening(live, tenant, worker.job_id, **{"Last-Event-ID": "2"}) as response:
        lines = response.iter_lines()
        assert [next(lines), next(lines), next(lines)] == [": ping", "", ": ping"]


def test_a_stream_has_a_bounded_life(
    live: Live, tenant: Tenant, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.streaming.LIFETIME_SECONDS", 0.3)
    monkeypatch.setattr("api.streaming.HEARTBEAT_SECONDS", 0.1)

    with listening(live, tenant, worker.job_id) as response:
        assert [item["id"] for item in messages(response)] == ["1", "2"]


def test_streams_end_when_the_server_does(live: Live, tenant: Tenant, worker: Worker) -> None:
    with listening(live, tenant, worker.job_id) as response:
        received = messages(response)
        assert [next(received)["id"], next(received)["id"]] == ["1", "2"]
        live.stop()
        assert list(received) == []


def test_a_caller_who_hangs_up_while_sending_leaves_no_error_behind(
    live: Live, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = live.url.removeprefix("http://").split(":")
    request = (
        "POST /v1/models/m/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        f"Authorization: Bearer {tenant.key}\r\n\r\n{{"
    )
    counted = live.resources.meters.requests
    with socket.create_connection((host, int(port))) as caller:
        caller.sendall(request.encode())

    assert httpx.get(f"{live.url}/healthz").status_code == 200
    live.stop()
    assert counted.labels("POST", "/v1/models/{name}/predict", "500")._value.get() == 0
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
