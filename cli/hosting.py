"""A service of one's own for a while: `evenkeel up` as a child that never outlives its owner."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.processes import UP, command
from core.errors import Unavailable
from core.settings import load_settings

READY_SECONDS = 60.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.05
LOG_LINES = 12


@contextmanager
def service(home: Path) -> Iterator[None]:
    """Runs `evenkeel up` on `home` and a free port; ready on entry, gone on exit.

    Raises Unavailable, with the end of its log, when it does not become ready.
    """
    log = home / "up.log"
    reading, writing = os.pipe()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command(UP, {"home": str(home), "host": "127.0.0.1", "port": 0}, str(reading)),
            pass_fds=(reading,),
            process_group=0,  # Ctrl-C is for the owner, which then stops it in good order
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    os.close(reading)
    try:
        _wait_until_ready(process, home, log)
        yield
    finally:
        _stop(process)
        os.close(writing)


def _wait_until_ready(process: subprocess.Popen[bytes], home: Path, log: Path) -> None:
    file = load_settings(home=home).service_file
    deadline = time.monotonic() + READY_SECONDS
    while not file.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
            raise Unavailable(f"the service did not start; the end of its log:\n{tail}")
        time.sleep(POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
