import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

# `evenkeel up` over children that start at once: an API that answers, a worker that only waits.
SMALL_UP = """
import sys
import cli.children, cli.lock, cli.up
cli.lock.PREDECESSOR_SECONDS = float(sys.argv[1])
cli.children.STOP_SECONDS = 1.0
cli.up.API = '''
import http.server, os, sys, threading
from cli.processes import settings
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments):
        pass
def end_with_parent():
    os.read(int(sys.argv[2]), 1)
    os._exit(1)
threading.Thread(target=end_with_parent, daemon=True).start()
http.server.HTTPServer(("127.0.0.1", settings().port), Handler).serve_forever()
'''
cli.up.WORKER = sys.argv[2]
sys.argv[1:] = ["{}"]
sys.exit(cli.up.main())
"""
WAITING_WORKER = "import os, sys; os.read(int(sys.argv[2]), 1)"


class SmallUp:
    def __init__(self, home: Path, worker: str = WAITING_WORKER, lock_seconds: float = 3.0, port: int = 0) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", SMALL_UP, str(lock_seconds), worker],
            env=os.environ | {"EVENKEEL_HOME": str(home), "EVENKEEL_PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_until_ready(self) -> dict[str, Any]:
        file = self.home / "service.json"
        until(file.exists)
        return json.loads(file.read_text())

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def end(self, number: int = signal.SIGTERM) -> str:
        """Everything that it printed."""
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=60)
        return output


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Returns once the condition holds; fails the test when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one whose parent is gone may stay a zombie where process 1 does not reap."""

    def runs(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [process for process in processes if runs(process)]


@pytest.fixture(name="living")
def living_fixture() -> Callable[[list[psutil.Process]], list[psutil.Process]]:
    return living


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., None]:
    return until


@pytest.fixture
def small_up(tmp_path) -> Iterator[Callable[..., SmallUp]]:
    started: list[SmallUp] = []

    def start(home: Path | None = None, **options: Any) -> SmallUp:
        started.append(SmallUp(home or tmp_path / "home", **options))
        return started[-1]

    yield start
    for up in started:
        if up.process.poll() is None:
            up.process.kill()
        up.process.communicate()
