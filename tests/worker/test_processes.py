"""Which libraries live in which process, and that none outlives its owner."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from core.bell import hear, open_bell, ring_here
from tests.worker.bench import wait_until
from worker import forkserver

PROBE = """
import json, pathlib, sys
torch = sys.modules.get("torch")
pathlib.Path({path!r}).write_text(json.dumps({{
    "modules": sorted(sys.modules),
    "cuda": bool(torch and torch.cuda.is_initialized()),
    "threads": torch.get_num_threads(),
}}))
"""


def probe_of_a_trainer(path: Path) -> dict:
    forkserver.warm_up()
    process = multiprocessing.get_context("forkserver").Process(target=exec, args=(PROBE.format(path=str(path)),))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    return json.loads(path.read_text())


def forkservers(owner: psutil.Process) -> list[psutil.Process]:
    """Those that live; one that has just been killed has no command line."""
    found = []
    for child in owner.children():
        with contextlib.suppress(psutil.Error):
            if "evenkeel: forkserver" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_a_trainer_starts_with_all_it_needs_and_nothing_of_the_server(tmp_path: Path) -> None:
    probe = probe_of_a_trainer(tmp_path / "probe.json")

    loaded = set(probe["modules"])
    assert {"torch", "torch._dynamo", "onnxruntime", "sklearn.datasets", "worker.trainer.main"} <= loaded
    assert loaded.isdisjoint({"fastapi", "sqlalchemy", "celery", "typer", "alembic"})


def test_the_forkserver_touches_no_gpu_and_runs_one_thread(tmp_path: Path) -> None:
    probe = probe_of_a_trainer(tmp_path / "probe.json")

    assert (probe["cuda"], probe["threads"]) == (False, 1)


def test_the_forkserver_ends_with_the_process_that_started_it() -> None:
    program = "from worker import forkserver; forkserver.warm_up(); print('warm', flush=True); input()"
    owner = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None and owner.stdin is not None
    assert owner.stdout.readline() == b"warm\n"
    [server] = forkservers(psutil.Process(owner.pid))

    os.kill(owner.pid, signal.SIGKILL)
    owner.wait(10)

    wait_until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, 5)
    owner.stdout.close()
    owner.stdin.close()


def test_a_killed_forkserver_is_replaced_before_the_next_job_is_claimed() -> None:
    forkserver.warm_up()
    [server] = forkservers(psutil.Process())
    server.kill()

    def replaced() -> bool:
        # Until the last of its threads has ended, the kernel does not report the end of the killed process.
        forkserver.warm_up()
        living = [process.pid for process in forkservers(psutil.Process())]
        return len(living) == 1 and living != [server.pid]

    wait_until(replaced, 10)


def test_the_bell_is_heard_once_for_each_ring(tmp_path: Path) -> None:
    bell = open_bell(tmp_path)

    ring_here(tmp_path)
    ring_here(tmp_path)

    assert (hear(bell), hear(bell)) == (2, 0)
    os.close(bell)


def test_a_bell_that_nobody_hears_disturbs_nobody(tmp_path: Path) -> None:
    ring_here(tmp_path)
    os.close(open_bell(tmp_path))

    ring_here(tmp_path)
