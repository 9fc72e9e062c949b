"""Requests that are answered as their bytes arrive get what all others get; the rest goes the usual way."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, Self

import httpx
import numpy as np
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api import remembered
from api.inference.direct import DirectProtocol
from api.inference.grants import GRANT_SECONDS
from api.inference.hot import HotPath
from core.artifacts import ArtifactStore
from core.credentials import split
from core.queries import keys
from core.settings import Settings
from tests.api.bench import Tenant, classifier, publish
from tests.api.live import Live, eventually, live_server

ROW = [[0.5, -1.0, 2.0, 3.0]]
PREDICT = json.dumps({"rows": ROW}).encode()
INFER = json.dumps(
    {"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": ROW[0]}], "id": "seven"}
).encode()
HEADER = json.dumps(
    {
        "inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}],
        "parameters": {"binary_data_output": True},
    }
).encode()


def binary(values: list[list[float]]) -> bytes:
    return HEADER + np.array(values, np.float32).tobytes()


class Connection:
    """A client that sends bytes as it likes."""

    def __init__(self, live: Live, tenant: Tenant) -> None:
        self.live = live
        host, port = live.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self._key = tenant.headers["Authorization"]
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def head(self, action: str, body: bytes, **more: str) -> bytes:
        headers = {"Host": "here", "Authorization": self._key, "Content-Type": "application/json"} | more
        if body.startswith(HEADER):
            headers["Inference-Header-Content-Length"] = str(len(HEADER))
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join([f"POST {action} HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""]).encode()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self._read:
            self._read += self._more()
        head, _, rest = self._read.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        size = int(headers["content-length"])
        while len(rest) < size:
            rest += self._more()
        self._read = rest[size:]
        return int(status.split()[1]), headers, rest[:size]

    def ask(self, action: str, body: bytes, **more: str) -> tuple[int, dict[str, str], bytes]:
        self.socket.sendall(self.head(action, body, **more) + body)
        return self.answer()

    def _more(self) -> bytes:
        content = self.socket.recv(65536)
        assert content, "the server closed the connection"
        return content


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of requests that went through ASGI."""
    paths: list[str] = []
    before = HotPath.__call__

    async def noted(self: HotPath, scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await before(self, scope, receive, send)

    monkeypatch.setattr(HotPath, "__call__", noted)
    return paths


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what the parser was given."""
    sizes: list[int] = []
    before = HttpToolsProtocol.data_received

    def noted(self: HttpToolsProtocol, data: bytes) -> None:
        sizes.append(len(data))
        before(self, data)

    monkeypatch.setattr(HttpToolsProtocol, "data_received", noted)
    return sizes


@pytest.fixture
def client(settings: Settings, tenant: Tenant, store: ArtifactStore, usual: list[str]) -> Iterator[Connection]:
    publish(tenant, store, "flowers", *classifier(), number=1)
    with live_server(settings.model_copy(update={"predict_queue_rows": 4})) as live, Connection(live, tenant) as given:
        yield given


def direct(client: Connection, usual: list[str], action: str, body: bytes, **more: str) -> Any:
    """The answer to a request that went past ASGI; the grant that it needs lasts for a moment only."""
    for _ in range(50):
        before = len(usual)
        answer = client.ask(action, body, **more)
        if len(usual) == before:
            return answer
    raise AssertionError("each request went through ASGI")


def unparsed(client: Connection, parsed: list[int], action: str, body: bytes) -> Any:
    """The answer to a request whose head was known by its bytes."""
    for _ in range(50):
        before = len(parsed)
        answer = client.ask(action, body)
        if len(parsed) == before:
            return answer
    raise AssertionError("each request was parsed")


ACTIONS = [
    ("/v1/models/flowers/predict", PREDICT),
    ("/v1/models/flowers/predict?version=1", PREDICT),
    ("/v2/models/flowers/infer", INFER),
    ("/v2/models/flowers/versions/1/infer", binary(ROW)),
]


@pytest.mark.parametrize(("action", "body"), ACTIONS)
def test_both_ways_give_the_same_answer(client: Connection, usual: list[str], action: str, body: bytes) -> None:
    first = client.ask(action, body)
    second = direct(client, usual, action, body)

    changing = ("date", "x-request-id")
    assert usual[0] == action.partition("?")[0]
    assert first[0] == second[0] == 200
    assert second[2] == first[2]
    assert {name: value for name, value in second[1].items() if name not in changing} == {
        name: value for name, value in first[1].items() if name not in changing
    }
    assert first[1]["x-request-id"] != second[1]["x-request-id"]


@pytest.mark.parametrize(("action", "body"), ACTIONS)
def test_a_head_that_comes_again_is_not_parsed_again(
    client: Connection, parsed: list[int], action: str, body: bytes
) -> None:
    first = client.ask(action, body)

    status, headers, content = unparsed(client, parsed, action, body)

    assert (status, content) == (200, first[2])
    assert headers.keys() == first[1].keys()


def test_a_known_head_takes_a_body_of_another_length(client: Connection, parsed: list[int]) -> None:
    action = "/v1/models/flowers/predict"
    longer = json.dumps({"rows": [[0.5000, -1.0, 2.0, 3.0], [4.25, 0.0, 1.0, -2.5]]}).encode()
    right = client.ask(action, longer)[2]
    unparsed(client, parsed, action, PREDICT)

    assert unparsed(client, parsed, action, longer)[2] == right


def test_a_body_beyond_the_bound_is_refused(
    settings: Settings, tenant: Tenant, store: ArtifactStore, parsed: list[int]
) -> None:
    publish(tenant, store, "flowers", *classifier(), number=1)
    action = "/v1/models/flowers/predict"
    with (
        live_server(settings.model_copy(update={"maximum_body_bytes": len(PREDICT)})) as live,
        Connection(live, tenant) as client,
    ):
        assert unparsed(client, parsed, action, PREDICT)[0] == 200

        assert client.ask(action, PREDICT + b" ")[0] == 413


def test_what_follows_a_known_head_may_come_in_pieces_or_at_once(client: Connection, parsed: list[int]) -> None:
    action = "/v2/models/flowers/infer"
    unparsed(client, parsed, action, INFER)
    bodies = [INFER.replace(b"seven", name) for name in (b"one", b"two", b"three")]
    one, two, three = (client.head(action, body) + body for body in bodies)

    for packet in (one + two[:70], two[70:-9], two[-9:] + three):
        client.socket.sendall(packet)
        Event().wait(0.02)  # so that each is a packet of its own

    assert [json.loads(client.answer()[2])["id"] for _ in bodies] == ["one", "two", "three"]
    assert unparsed(client, parsed, action, INFER)[0] == 200


def test_a_key_that_is_revoked_is_refused_though_its_head_is_known(
    client: Connection, parsed: list[int], tenant: Tenant
) -> None:
    action = "/v1/models/flowers/predict"
    unparsed(client, parsed, action, PREDICT)
    parts = split(tenant.key)
    assert parts is not None

    answer = httpx.delete(f"{client.live.url}/v1/keys/{parts[0]}", headers=tenant.headers)

    assert answer.json()["revoked_at"] is not None
    assert client.ask(action, PREDICT)[0] == 401


def test_a_key_that_was_revoked_by_another_process_ends_within_5_seconds(
    client: Connection, parsed: list[int], tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = "/v1/models/flowers/predict"
    unparsed(client, parsed, action, PREDICT)
    parts = split(tenant.key)
    assert parts is not None
    with tenant.database.write() as connection:
        connection.execute(keys.revoke(tenant.id, parts[0]))
    assert client.ask(action, PREDICT)[0] == 200  # which nobody has told this process

    later = SimpleNamespace(monotonic=lambda: time.monotonic() + 5.0 - 2 * GRANT_SECONDS)
    monkeypatch.setattr(remembered, "time", later)
    Event().wait(1.5 * GRANT_SECONDS)  # what was let through just before has this moment

    assert client.ask(action, PREDICT)[0] == 401


def test_a_connection_that_is_not_used_any_more_is_closed(
    client: Connection, parsed: list[int], tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = DirectProtocol.__init__

    def impatient(self: DirectProtocol, *given: Any, **named: Any) -> None:
        before(self, *given, **named)
        self.timeout_keep_alive = 1

    monkeypatch.setattr(DirectProtocol, "__init__", impatient)
    with Connection(client.live, tenant) as other:
        other.ask("/v1/models/flowers/predict", PREDICT)
        Event().wait(0.6)
        unparsed(other, parsed, "/v1/models/flowers/predict", PREDICT)
        used = time.monotonic()

        assert other.socket.recv(1) == b""
        assert time.monotonic() - used > 0.9  # a second after its last request, which is not that after its first


def test_a_body_that_comes_later_or_in_pieces_is_answered(client: Connection) -> None:
    head = client.head("/v1/models/flowers/predict", PREDICT)
    whole = client.ask("/v1/models/flowers/predict", PREDICT)[2]

    for pieces in ([head, PREDICT], [head + PREDICT[:5], PREDICT[5:]], [head[:30], head[30:] + PREDICT]):
        for piece in pieces:
            client.socket.sendall(piece)
            Event().wait(0.02)  # so that each is a packet of its own
        assert client.answer()[2] == whole


def test_requests_that_are_sent_without_waiting_are_answered_in_order(client: Connection, usual: list[str]) -> None:
    client.ask("/v2/models/flowers/infer", INFER)
    bodies = [INFER.replace(b"seven", name) for name in (b"one", b"two", b"three")]

    client.socket.sendall(b"".join(client.head("/v2/models/flowers/infer", body) + body for body in bodies))

    assert [json.loads(client.answer()[2])["id"] for _ in bodies] == ["one", "two", "three"]


def test_a_client_that_closes_is_closed(client: Connection, usual: list[str]) -> None:
    client.ask("/v1/models/flowers/predict", PREDICT)

    _, headers, _ = client.ask("/v1/models/flowers/predict", PREDICT, Connection="close")

    assert headers["connection"] == "close"
    assert client.socket.recv(1) == b""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (binary([[0.0, 1.0, float("nan"), 3.0]]), "row 0, column 2"),
        (binary(ROW)[:-1], "binary_data_size 16, and 15 bytes follow"),
        (INFER.replace(b"FP32", b"FP33"), "unknown datatype"),
    ],
)
def test_errors_are_those_of_the_usual_way(
    client: Connection, usual: list[str], parsed: list[int], body: bytes, said: str
) -> None:
    action = "/v2/models/flowers/infer"
    first = client.ask(action, body)
    direct(client, usual, action, INFER)

    second = client.ask(action, body)
    unparsed(client, parsed, action, INFER if not body.startswith(HEADER) else binary(ROW))
    third = client.ask(action, body)

    assert third[0] == first[0]
    assert re.sub(rb"req_\w+", b"", first[2]) == re.sub(rb"req_\w+", b"", third[2])
    assert first[0] == second[0] in (400, 422)
    assert said in json.loads(second[2])["error"]
    assert re.sub(rb"req_\w+", b"", first[2]) == re.sub(rb"req_\w+", b"", second[2])


class Blocked:
    """A session that answers when it is let go."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.asked, self.go = Event(), Event()

    def run(self, *given: Any) -> Any:
        self.asked.set()
        assert self.go.wait(30)
        return self._session.run(*given)


@pytest.fixture
def blocked(client: Connection, usual: list[str]) -> Iterator[Any]:
    """The model's lane, with a batch that does not end, and more threads all taken."""
    direct(client, usual, "/v1/models/flowers/predict", PREDICT)
    (lane,) = client.live.resources.engine.lanes()
    session = Blocked(lane.model.session)
    object.__setattr__(lane.model, "session", session)
    lane._alone = 1.0  # so that batches run beside
    client.live.resources.engine.batcher._idle = 1
    yield lane
    session.go.set()


@pytest.fixture
def crowd() -> Iterator[ExitStack]:
    """Closes what it is given."""
    with ExitStack() as stack:
        yield stack


def test_a_client_that_leaves_takes_its_rows_out_of_the_queue(
    client: Connection, usual: list[str], blocked: Any, tenant: Tenant, crowd: ExitStack
) -> None:
    others = [crowd.enter_context(Connection(client.live, tenant)) for _ in range(3)]
    for other in others:  # the first is a batch by itself, and the others wait behind it
        other.socket.sendall(client.head("/v1/models/flowers/predict", PREDICT) + PREDICT)
        assert blocked.model.session.asked.wait(10)
    eventually(lambda: blocked.rows_waiting == 2, "two wait")

    for other in others[1:]:
        other.socket.close()
    eventually(lambda: all(entry[2].over for entry in blocked.waiting), "they are gone")
    blocked.model.session.go.set()

    assert others[0].answer()[0] == 200
    eventually(lambda: blocked.tally.cancelled == 2, "they are counted")


def test_who_finds_the_queue_full_is_told_at_once(
    client: Connection, blocked: Any, tenant: Tenant, crowd: ExitStack
) -> None:
    others = [crowd.enter_context(Connection(client.live, tenant)) for _ in range(5)]
    for other in others:
        other.socket.sendall(client.head("/v1/models/flowers/predict", PREDICT) + PREDICT)
        assert blocked.model.session.asked.wait(10)
    eventually(lambda: blocked.rows_waiting == 4, "four wait")

    status, headers, body = client.ask("/v1/models/flowers/predict", PREDICT)

    assert status == 429
    assert int(headers["retry-after"]) >= 1
    assert "rows already wait" in json.loads(body)["detail"]


def known_and_blocked(client: Connection, parsed: list[int], action: str, blocked: Any) -> None:
    """The head is known, and the next request does not end."""
    blocked.model.session.go.set()
    unparsed(client, parsed, action, INFER)
    blocked.model.session.go.clear()
    blocked.model.session.asked.clear()


def test_what_comes_before_the_answer_to_a_known_head_waits_for_it(
    client: Connection, usual: list[str], parsed: list[int], blocked: Any
) -> None:
    action = "/v2/models/flowers/infer"
    known_and_blocked(client, parsed, action, blocked)
    bodies = [INFER.replace(b"seven", name) for name in (b"one", b"two", b"three")]

    for body in bodies:
        client.socket.sendall(client.head(action, body) + body)
        assert blocked.model.session.asked.wait(10)
        Event().wait(0.02)  # so that each is a packet of its own
    blocked.model.session.go.set()

    assert [json.loads(client.answer()[2])["id"] for _ in bodies] == ["one", "two", "three"]


def test_a_model_that_fails_is_told_to_whoever_was_not_parsed(
    client: Connection, usual: list[str], parsed: list[int], blocked: Any
) -> None:
    action = "/v2/models/flowers/infer"
    blocked.model.session.go.set()
    unparsed(client, parsed, action, INFER)
    object.__setattr__(blocked.model, "session", None)

    status, _, body = client.ask(action, INFER)

    assert status == 503
    assert "could not answer" in json.loads(body)["error"]


def test_a_service_that_ends_answers_whoever_was_not_parsed(
    client: Connection, usual: list[str], parsed: list[int], blocked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = "/v2/models/flowers/infer"
    known_and_blocked(client, parsed, action, blocked)
    client.socket.sendall(client.head(action, INFER) + INFER)
    assert blocked.model.session.asked.wait(10)
    ending = Event()
    before = DirectProtocol.shutdown

    def noted(self: DirectProtocol) -> None:
        before(self)
        ending.set()

    monkeypatch.setattr(DirectProtocol, "shutdown", noted)
    stopping = Thread(target=client.live.stop)
    stopping.start()
    assert ending.wait(10)
    blocked.model.session.go.set()

    status, headers, _ = client.answer()
    stopping.join()

    assert (status, headers["connection"]) == (200, "close")
    assert client.socket.recv(1) == b""
