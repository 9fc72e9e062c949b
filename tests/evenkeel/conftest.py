"""A small real HTTP server whose answers a test writes down beforehand."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from evenkeel import Client


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Any  # by name, in any case
    body: Any


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    pieces: tuple[bytes, ...] | None = None  # of a stream, sent in chunks
    cut: bool = False  # close the connection without an end


class Service:
    """Gives its answers in order; `requests` says what came."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[Request] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: object) -> None:
                pass

            def _serve(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                service.requests.append(Request(self.command, self.path, self.headers, body))
                service._give(self, service.answers.pop(0))

            do_GET = do_POST = do_PUT = do_DELETE = _serve

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that left before its answer was whole is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _give(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        if answer.cut and answer.pieces is None:
            handler.close_connection = True
            return
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if answer.pieces is not None:
            handler.send_header("Content-Type", "text/event-stream")
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for piece in answer.pieces:
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if answer.cut:
                handler.close_connection = True
            else:
                handler.wfile.write(b"0\r\n\r\n")
            return
        content = b"" if answer.body is None else json.dumps(answer.body).encode()
        handler.send_header("Content-Type", "application/json")
        if answer.status != 204:
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.close()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, "ek_key_secret", patience_seconds=5.0) as here:
        yield here


@pytest.fixture
def answer() -> type[Answer]:
    return Answer


@pytest.fixture
def job_body() -> Any:
    def build(**changes: Any) -> dict[str, Any]:
        return {
            "object": "job",
            "id": "job_1",
            "name": "digits-mlp",
            "status": "running",
            "terminal": False,
            "status_reason": None,
            "phase": "training",
            "attempt": 1,
            "progress": {"step": 5, "steps": 10, "fraction": 0.5, "eta_seconds": None},
            "latest_metrics": {"train/loss": 0.5},
            "spec": {"name": "digits-mlp", "training": {"steps": 10, "batch_size": 60}},
            "metadata": {},
            "error": None,
            "result": None,
            "retry_of": None,
            "created_at": "2026-11-22T17:21:00.123000Z",
            "started_at": None,
            "finished_at": None,
        } | changes

    return build


@pytest.fixture
def sse() -> Any:
    def build(seq: int, type_: str = "metrics", **data: Any) -> bytes:
        event = {
            "object": "event",
            "job_id": "job_1",
            "seq": seq,
            "type": type_,
            "level": "info",
            "message": "a line\u2028broken by Unicode only",
            "attempt": 1,
            "data": data,
            "created_at": "2026-11-22T17:21:00Z",
        }
        return f"id: {seq}\nevent: {type_}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()

    return build
