"""A load generator in a process of its own: prepared bytes over raw connections, one request at a time on each.

    python _serving_load.py PORT CONNECTIONS SECONDS FILE

FILE is JSON: `requests` (base64 of whole HTTP requests, taken in turn) and `marks` (base64, for each request the
bytes that a right answer holds; empty: any answer with status 200). Prints one line of JSON.

It never sleeps: it has a core to itself, and to be woken up would take it longer than some servers need for an answer.
"""

import base64
import json
import select
import socket
import sys
import time
from pathlib import Path

LONGEST_WAIT = 30.0


class Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), LONGEST_WAIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.current = 0
        self.sent = 0.0
        self.read = b""

    def ask(self, request: bytes, number: int) -> None:
        self.current = number
        self.read = b""
        self.sent = time.perf_counter()
        if self.socket.send(request) != len(request):
            raise RuntimeError("a request does not fit the buffer of its socket")

    def answer(self) -> bytes | None:
        """The whole answer, once it is there. Raises ConnectionError."""
        data = self.socket.recv(262144)
        if not data:
            raise ConnectionResetError
        self.read = data = self.read + data if self.read else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = data[:end].lower()
        place = head.find(b"content-length:")
        if place < 0:  # chunked
            return data if data.endswith(b"0\r\n\r\n") else None
        stop = head.find(b"\r", place)
        length = int(head[place + 15 : stop if stop > 0 else None])
        return data if len(data) >= end + 4 + length else None


class Load:
    def __init__(self, port: int, connections: int, requests: list[bytes], marks: list[bytes]) -> None:
        self.port, self.requests, self.marks = port, requests, marks
        self.times: list[float] = []
        self.wrong = self.lost = self.all = 0
        self.sample = b""
        self._poll = select.epoll()
        self._connections: dict[int, Connection] = {}
        for number in range(connections):
            self._connect(number)

    def run(self, seconds: float) -> None:
        """Asks until the time is over."""
        end = time.perf_counter() + seconds
        last = time.perf_counter()
        while (now := time.perf_counter()) < end:
            ready = self._poll.poll(0)
            if ready:
                last = now
            elif now - last > LONGEST_WAIT:
                raise RuntimeError("nothing was answered for so long")
            for descriptor, _ in ready:
                self._go_on(self._connections[descriptor])

    def _connect(self, number: int) -> None:
        connection = Connection(self.port)
        descriptor = connection.socket.fileno()
        self._poll.register(descriptor, select.EPOLLIN)
        self._connections[descriptor] = connection
        self._ask(connection, number)

    def _ask(self, connection: Connection, number: int) -> None:
        number %= len(self.requests)
        connection.ask(self.requests[number], number)

    def _go_on(self, connection: Connection) -> None:
        try:
            data = connection.answer()
        except ConnectionError:
            self.lost += 1
            del self._connections[connection.socket.fileno()]
            connection.socket.close()
            self._connect(connection.current)
            return
        if data is None:
            return
        self.times.append(time.perf_counter() - connection.sent)
        self.all += 1
        mark = self.marks[connection.current]
        if not (data.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")) and (not mark or mark in data)):
            self.wrong += 1
            self.sample = data
        self._ask(connection, connection.current + len(self._connections))


def main() -> None:
    port, connections, seconds, file = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
    given = json.loads(file.read_text())
    requests, marks = ([base64.b64decode(text) for text in given[what]] for what in ("requests", "marks"))
    load = Load(port, connections, requests, marks)
    load.run(seconds * 0.2)  # not counted
    load.times.clear()
    load.wrong = load.lost = 0
    began = time.perf_counter()
    load.run(seconds)
    elapsed = time.perf_counter() - began
    times = sorted(load.times) or [float("inf")]
    print(
        json.dumps(
            {
                "rate": len(load.times) / elapsed,
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
