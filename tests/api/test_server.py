"""The served process itself: small at rest, quick to end, and gone when its parent is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.api.live import eventually

CODE = """
import sys
from core.settings import Settings
from api.server import serve
home, url, port, parent = sys.argv[1:]
serve(Settings(home=home, database_url=url, port=int(port), log_level="warning"), int(parent))
"""
REST_BYTES = 150 * 1024 * 1024


class Process:
    def __init__(self, home: Path, url: str, port: int) -> None:
        reading, self.parents_end = os.pipe()
        self.url = f"http://127.0.0.1:{port}"
        self.child = subprocess.Popen(
            [sys.executable, "-c", CODE, str(home), url, str(port), str(reading)], pass_fds=(reading,)
        )
        os.close(reading)
        eventually(self._answers, "the process answers")

    def _answers(self) -> bool:
        assert self.child.poll() is None
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def seconds_to_end(self) -> float:
        began = time.monotonic()
        self.child.wait(20)
        return time.monotonic() - began


@pytest.fixture
def process(tmp_path: Path, sqlite_url: str, unused_port: int) -> Iterator[Process]:
    process = Process(tmp_path, sqlite_url, unused_port)
    yield process
    process.child.kill()
    process.child.wait()


def test_it_is_small_and_idle_at_rest(process: Process) -> None:
    child = psutil.Process(process.child.pid)
    before = child.cpu_times()
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > 1.0, "a second has passed")
    after = child.cpu_times()

    spent = after.user + after.system - before.user - before.system
    assert child.memory_info().rss < REST_BYTES
    assert spent < 0.05
    assert child.cmdline()[0].startswith("evenkeel: api")


def test_it_ends_at_sigterm(process: Process) -> None:
    process.child.send_signal(signal.SIGTERM)

    assert process.seconds_to_end() < 3


def test_it_ends_when_its_parent_does(process: Process) -> None:
    os.close(process.parents_end)

    assert process.seconds_to_end() < 3
