import itertools
import os
import re
import signal
import socket
import stat

import httpx
import psutil
import pytest

from cli import lock
from core.errors import SettingsInvalid

DEAF_WORKER = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.read(int(sys.argv[2]), 1)
"""
DYING_WORKER = "import sys; sys.exit(7)"


def times_awake(process: psutil.Process) -> int:
    """How often a thread of it has gone to sleep until now."""
    return sum(psutil.Process(thread.id).num_ctx_switches().voluntary for thread in process.threads())


def test_a_first_start_prints_the_admin_key_once_and_keeps_it_readable_by_its_owner_only(small_up, tmp_path):
    first = small_up()
    service = first.wait_until_ready()
    key_file = tmp_path / "home" / "admin-key"

    printed = first.end()
    again = small_up()
    again.wait_until_ready()
    printed_again = again.end()

    key = key_file.read_text().strip()
    assert service["pid"] == first.process.pid
    assert printed.count(key) == 1
    assert key not in printed_again
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_a_signal_ends_the_children_and_removes_the_service_file(small_up, living, tmp_path):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        up = small_up()
        up.wait_until_ready()
        children = up.children()

        up.end(number)

        assert up.process.returncode == 0
        assert len(children) == 2
        assert living(children) == []
        assert not (tmp_path / "home" / "service.json").exists()


def test_a_second_up_refuses_and_names_the_home_and_its_holder(small_up, tmp_path):
    up = small_up()
    up.wait_until_ready()

    second = small_up(lock_seconds=0.2)
    output, _ = second.process.communicate(timeout=60)

    assert second.process.returncode == 1
    assert output.count("\n") == 1
    assert str(tmp_path / "home") in output
    assert f"process {up.process.pid}" in output


def test_a_killed_child_is_started_again(small_up, until):
    up = small_up()
    up.wait_until_ready()
    for victim in up.children():
        victim.kill()
        until(lambda: len(up.children()) == 2 and victim not in up.children())  # noqa: B023 - used within its turn

    output = up.end()

    assert "api killed by SIGKILL; it starts again in 0.1 s" in output
    assert "worker killed by SIGKILL; it starts again in 0.1 s" in output


def test_a_child_that_keeps_dying_is_started_less_and_less_often(small_up):
    up = small_up(worker=DYING_WORKER)
    up.wait_until_ready()

    endings = itertools.islice((line for line in up.process.stdout if "worker ended with status 7" in line), 4)
    pauses = [re.search(r"it starts again in ([\d.]+) s", line)[1] for line in endings]

    assert pauses == ["0.1", "0.2", "0.4", "0.8"]


def test_a_child_that_does_not_listen_is_killed_in_the_end(small_up, living):
    up = small_up(worker=DEAF_WORKER)
    up.wait_until_ready()
    children = up.children()

    up.end()

    assert up.process.returncode == 0
    assert living(children) == []


def test_the_children_end_within_a_second_of_a_killed_parent_and_the_home_is_free_again(small_up, until, living):
    up = small_up()
    up.wait_until_ready()
    children = up.children()

    up.process.kill()
    until(lambda: living(children) == [], seconds=1.0)
    successor = small_up()
    successor.wait_until_ready()

    successor.end()


def test_a_home_that_can_not_be_one_is_refused_with_the_remedy(tmp_path):
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(SettingsInvalid, match=r"file can not be a home .*--home"):
        lock.hold(file)


def test_a_port_that_is_taken_is_named_before_anything_starts(small_up, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        port = other.getsockname()[1]
        up = small_up(port=port)
        output, _ = up.process.communicate(timeout=60)

    assert up.process.returncode == 1
    assert f"port {port}" in output
    assert "--port" in output
    assert not (tmp_path / "home" / "admin-key").exists()


def test_the_parent_is_small_and_does_nothing_while_nothing_happens(small_up, until):
    up = small_up()
    service = up.wait_until_ready()
    parent = psutil.Process(up.process.pid)
    until(lambda: parent.status() == psutil.STATUS_SLEEPING and len(parent.threads()) == 3)  # one waits for each child
    before = times_awake(parent)

    with httpx.Client(base_url=service["url"]) as client:
        for _ in range(50):
            assert client.get("/healthz").status_code == 200

    assert times_awake(parent) == before
    assert parent.memory_info().rss < 60e6
    assert os.getpgid(parent.pid) != os.getpgid(up.children()[0].pid)
    up.end()
