"""An api and several workers on Postgres and Valkey, as plain processes of this machine, each on a home of its own."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from benchmarks._stacks import Valkey, cluster
from evenkeel import Client
from evenkeel.errors import EvenkeelClientError
from tests.servers import free_port

EVENKEEL = str(Path(sys.executable).with_name("evenkeel"))
START_SECONDS = 90.0
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Counts:
    """What the broker has taken in and given out since it was started."""

    sent: int
    received: int

    def since(self, earlier: "Counts") -> "Counts":
        return Counts(self.sent - earlier.sent, self.received - earlier.received)


def counts_in(stats: dict[str, Any]) -> Counts:
    """From `INFO commandstats`: Celery sends with one LPUSH, and notes with one HSET that a message came out."""
    return Counts(*(int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]) for command in ("lpush", "hset")))


@dataclass(frozen=True)
class Fleet:
    database_url: str
    broker: Valkey
    api_url: str
    api_key: str
    folder: Path
    _redis: Any

    def client(self) -> Client:
        return Client(self.api_url, self.api_key, patience_seconds=30.0)

    def counts(self) -> Counts:
        return counts_in(self._redis.info("commandstats"))

    def complaints(self) -> list[str]:
        """Warnings and errors in the logs of the api and the workers."""
        return [
            f"{log.parent.name}: {line}"
            for log in sorted(self.folder.glob("*/log"))
            for line in log.read_text(errors="replace").splitlines()
            if " WARNING " in line or " ERROR " in line or "shutdown" in line.lower()
        ]

    def left(self, queue: str) -> int:
        """Messages that nobody has taken out."""
        return int(self._redis.llen(queue))


@contextmanager
def fleet(folder: Path, workers: int, settings: dict[str, str]) -> Iterator[Fleet]:
    """Ready on entry: every worker is in the list of nodes. Gone on exit."""
    with cluster() as (stack, broker), contextlib.ExitStack() as stopping:
        port = free_port()
        shared = stack | settings | {"EVENKEEL_ARTIFACT_URL": str(folder / "artifacts")}
        home = folder / "api"
        subprocess.run([EVENKEEL, "migrate"], env=_environment(shared, home), check=True, stdout=subprocess.DEVNULL)
        stopping.enter_context(_process(["api", "--port", str(port)], shared, home))
        for number in range(workers):
            stopping.enter_context(_process(["worker"], shared, folder / f"worker-{number}"))
        connection = stopping.enter_context(redis.Redis.from_url(broker.url))
        key = (home / "admin-key").read_text().strip()
        running = Fleet(stack["EVENKEEL_DATABASE_URL"], broker, f"http://127.0.0.1:{port}", key, folder, connection)
        with running.client() as client:
            wait_until(lambda: _nodes(client) == workers, START_SECONDS)
        yield running


def wait_until(condition: Callable[[], bool], seconds: float, pause_seconds: float = 0.2) -> None:
    """Raises TimeoutError after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(pause_seconds)


def _nodes(client: Client) -> int:
    try:
        return len(client.nodes())
    except EvenkeelClientError:
        return -1


def _environment(settings: dict[str, str], home: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("EVENKEEL_")}
    return ours | settings | {"EVENKEEL_HOME": str(home)}


@contextmanager
def _process(arguments: list[str], settings: dict[str, str], home: Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [EVENKEEL, *arguments], env=_environment(settings, home), stdout=log, stderr=log, process_group=0
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
