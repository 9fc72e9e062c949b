"""Several processes on one port, and a role that only predicts."""

import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cli.processes import API_GROUP, command
from tests.api.live import eventually


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
    return found


def answers(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            json.load(answer)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.fixture
def group(tmp_path: Path, sqlite_url: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    overrides = {"home": str(tmp_path), "database_url": sqlite_url, "port": port, "api_workers": 2, "role": "inference"}
    process = subprocess.Popen(command(API_GROUP, overrides), env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    eventually(lambda: answers(port, "/readyz") == 200, "the group answers")
    yield process
    process.kill()
    process.wait()


def test_two_processes_share_a_port_replace_each_other_and_end_together(
    group: subprocess.Popen[bytes], port: int
) -> None:
    def living() -> set[int]:
        return {child.pid for child in psutil.Process(group.pid).children() if child.status() != "zombie"}

    eventually(lambda: len(living()) == 2, "both processes live")
    first = living()
    os.kill(min(first), signal.SIGKILL)
    eventually(lambda: len(living()) == 2 and living() != first, "the dead one is replaced")
    assert answers(port, "/healthz") == 200
    assert (answers(port, "/v1/jobs"), answers(port, "/v1/models"), answers(port, "/v2")) == (404, 401, 200)

    last = living()
    group.terminate()

    assert group.wait(15) == 0
    assert not any(psutil.pid_exists(pid) for pid in last)
