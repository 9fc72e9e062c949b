"""A load generator in a process of its own: prepared bytes over raw connections, one request at a time on each.

    python _serving_load.py PORT CONNECTIONS SECONDS FILE

FILE is JSON: `requests` (base64 of whole HTTP requests, taken in turn) and `marks` (base64, for each request the
bytes that a right answer holds; empty: any answer with status 200). Prints one line of JSON.
"""

import asyncio
import base64
import json
import sys
import time
from pathlib import Path

import uvloop


class Connection(asyncio.Protocol):
    def __init__(self, load: "Load", number: int) -> None:
        self.load = load
        self.next = number
        self.current = number
        self.buffer = b""
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.current = self.next % len(self.load.requests)
        self.next += self.load.connections
        self.sent = time.perf_counter()
        self.transport.write(self.load.requests[self.current])

    def data_received(self, data: bytes) -> None:
        if self.buffer:
            data = self.buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.buffer = data
            return
        head = data[:end].lower()
        place = head.find(b"content-length:")
        if place < 0:  # chunked
            if not data.endswith(b"0\r\n\r\n"):
                self.buffer = data
                return
        else:
            stop = head.find(b"\r", place)
            length = int(head[place + 15 : stop if stop > 0 else None])
            if len(data) < end + 4 + length:
                self.buffer = data
                return
        self.buffer = b""
        mark = self.load.marks[self.current]
        right = data.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")) and (not mark or mark in data)
        self.load.answered(time.perf_counter() - self.sent, right, data)
        if not self.load.over:
            self.send()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.load.over:
            self.load.lost += 1
            self.load.again.append(asyncio.ensure_future(self.load.connect(self.next)))


class Load:
    def __init__(self, port: int, connections: int, requests: list[bytes], marks: list[bytes]) -> None:
        self.port, self.connections, self.requests, self.marks = port, connections, requests, marks
        self.times: list[float] = []
        self.wrong = self.lost = self.all = 0
        self.over = False
        self.again: list[asyncio.Future[None]] = []
        self.sample = b""

    def answered(self, seconds: float, right: bool, data: bytes) -> None:
        self.times.append(seconds)
        self.all += 1
        if not right:
            self.wrong += 1
            self.sample = data

    async def connect(self, number: int) -> None:
        await asyncio.get_running_loop().create_connection(lambda: Connection(self, number), "127.0.0.1", self.port)

    async def run(self, seconds: float) -> None:
        for number in range(self.connections):
            await self.connect(number)
        await asyncio.sleep(seconds * 0.2)  # not counted
        self.times.clear()
        self.wrong = 0
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        self.elapsed = time.perf_counter() - began
        self.over = True


def main() -> None:
    port, connections, seconds, file = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
    given = json.loads(file.read_text())
    requests, marks = ([base64.b64decode(text) for text in given[what]] for what in ("requests", "marks"))
    load = Load(port, connections, requests, marks)
    uvloop.run(load.run(seconds))
    times = sorted(load.times) or [float("inf")]
    print(
        json.dumps(
            {
                "rate": len(load.times) / load.elapsed,
                "all": load.all,
                "p50": times[len(times) // 2] * 1e3,
                "p99": times[min(len(times) - 1, int(len(times) * 0.99))] * 1e3,
                "errors": load.wrong + load.lost,
                "sample": load.sample[:300].decode(errors="replace"),
            }
        )
    )


if __name__ == "__main__":
    main()
