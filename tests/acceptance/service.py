"""The whole service as its users run it: `evenkeel up` in a process of its own, watched from outside."""

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from evenkeel import Client
from evenkeel.errors import EvenkeelClientError
from tests.servers import free_port

FAST = {
    "EVENKEEL_LEASE_SECONDS": "4",
    "EVENKEEL_HEARTBEAT_SECONDS": "0.5",
    "EVENKEEL_REAPER_SECONDS": "0.5",
    "EVENKEEL_TICK_SECONDS": "0.05",
}
START_SECONDS = 60.0


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value of the condition; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        threading.Event().wait(0.005)
    raise AssertionError("the condition did not come true in time")


class Service:
    def __init__(self, home: Path, settings: dict[str, str] | None = None) -> None:
        self.home = home
        self.port = free_port()
        self.settings = FAST | (settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Client] = []
        self.log = home.parent / f"{home.name}.log"

    def start(self) -> None:
        environment = os.environ | self.settings | {"EVENKEEL_HOME": str(self.home)}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).with_name("evenkeel")), "up", "--port", str(self.port)],
                env=environment,
                stdout=log,
                stderr=log,
            )
        wait_until(self._ready, START_SECONDS)

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads((self.home / "service.json").read_text())["pid"] == self._process.pid
        return False

    def stop(self) -> int:
        """SIGTERM; the exit code. What was a client of it is closed."""
        assert self._process is not None
        while self._clients:
            self._clients.pop().close()
        self._process.terminate()
        return self._process.wait(20)

    def has_trainer(self, job_id: str) -> bool:
        return self._titled(f"evenkeel: trainer {job_id}", psutil.process_iter()) is not None

    def client(self) -> Client:
        self._clients.append(Client(home=self.home, patience_seconds=60))
        return self._clients[-1]

    def up(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def worker(self) -> psutil.Process:
        return wait_until(lambda: self._titled("evenkeel: worker", self.up().children()))

    def api(self) -> psutil.Process:
        return wait_until(lambda: self._titled("evenkeel: api", self.up().children()))

    def forkserver(self) -> psutil.Process:
        return wait_until(lambda: self._titled("evenkeel: forkserver", self.worker().children()))

    def kill(self, target: str, job_id: str) -> bool:
        """SIGKILL for the named process, and whether it was there; `up` is started again as a person would."""
        if target == "up":
            self.kill_up()
            self.start()
            return True
        if target == "trainer":
            client = self.client()
            wait_until(lambda: self.trainer(job_id) is not None or client.job(job_id).terminal)
            trainer = self.trainer(job_id)
            return trainer is not None and _killed(trainer)
        return _killed({"forkserver": self.forkserver, "worker": self.worker, "api": self.api}[target]())

    def kill_up(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def trainer(self, job_id: str) -> psutil.Process | None:
        """The process that trains the job; None before it is forked and after it has ended."""
        return self._titled(f"evenkeel: trainer {job_id}", psutil.process_iter())

    @staticmethod
    def _titled(title: str, processes: Any) -> psutil.Process | None:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if " ".join(process.cmdline()).strip() == title:
                    return process
        return None


def _killed(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
        return True
    return False


class RestlessReader(threading.Thread):
    """A client that drops its connection at random and takes up again after the last `seq` that it saw."""

    def __init__(self, service: Service, job_id: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._service, self._job_id = service, job_id
        self._random = random.Random(seed)
        self.seqs: list[int] = []
        self.types: list[str] = []

    def run(self) -> None:
        client = self._service.client()
        while not self.types or self.types[-1] != "end":
            with contextlib.suppress(EvenkeelClientError):
                for event in self._some(client):
                    self.seqs.append(event.seq)
                    self.types.append(event.type)
                    if event.type == "end":
                        return

    def _some(self, client: Client) -> Iterator[Any]:
        """A few events of one connection."""
        left = self._random.randint(1, 5)
        for event in client.stream(self._job_id, after=self.seqs[-1] if self.seqs else 0):
            yield event
            left -= 1
            if left == 0:
                return


def recorded_points(client: Client, job_id: str) -> dict[str, list[tuple[int, Any]]]:
    """Every metric point at full resolution, but for those that depend on the clock."""
    series = client.metrics(job_id, max_points=100_000)
    return {
        name: list(zip(one.steps, one.values, strict=True))
        for name, one in series.items()
        if not name.startswith("throughput/")
    }
