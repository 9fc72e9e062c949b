"""`evenkeel serve` in a process of its own, and clients that speak to it over raw connections."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import httpx
import numpy as np
import orjson
import psutil

from cli.processes import API, command
from core.settings import Settings
from tests.acceptance.service import START_SECONDS, wait_until
from tests.servers import free_port

Rows = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Serving:
    port: int
    process: psutil.Process


@contextmanager
def serving(settings: Settings, **more: str | int | None) -> Iterator[Serving]:
    """The process, once it answers."""
    port = free_port()
    given: dict[str, str | int | None] = {
        "home": str(settings.home),
        "database_url": settings.database_url,
        "port": port,
        "log_level": "warning",
        "role": "inference",
    }
    started = subprocess.Popen(command(API, given | more))
    try:
        wait_until(lambda: _is_ready(port), START_SECONDS)
        yield Serving(port, psutil.Process(started.pid))
    finally:
        started.terminate()
        started.wait(20)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def tensor(self) -> bytes:
        """The bytes behind the header of an answer with binary tensors."""
        assert self.status == 200, self.body
        return self.body[int(self.headers["inference-header-content-length"]) :]


class Connection:
    """One request at a time."""

    def __init__(self, serving: Serving, key: str) -> None:
        self._port, self._key = serving.port, key

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def infer(self, path: str, rows: Rows) -> Answer:
        """The probabilities as binary tensors."""
        tensor = {
            "name": "input",
            "shape": list(rows.shape),
            "datatype": "FP32",
            "parameters": {"binary_data_size": rows.nbytes},
        }
        outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
        header = orjson.dumps({"inputs": [tensor], "outputs": outputs})
        return await self.ask(
            "POST", path, header + rows.tobytes(), f"Inference-Header-Content-Length: {len(header)}\r\n"
        )

    async def ask(self, method: str, path: str, body: bytes, headers: str = "") -> Answer:
        head = f"{method} {path} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {self._key}\r\n{headers}"
        kind = "application/octet-stream" if headers else "application/json"
        self._writer.write(f"{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        found = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        content = await self._reader.readexactly(int(found["content-length"]))
        return Answer(int(lines[0].split()[1]), found, content)


def percentile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[int(len(seconds) * share)]
