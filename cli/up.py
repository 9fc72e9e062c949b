"""`evenkeel up`: a small parent of two processes, api and worker. It blocks until one of them ends or a signal comes.

Light on purpose: standard library and settings only; whatever needs more runs in a process of its own.
"""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue

from setproctitle import setproctitle

from cli import lock, processes
from cli.children import Child, Events, listen_for_signals, say, stop, stop_with, supervise
from cli.processes import API, PREPARE, WORKER, Overrides, command
from core.errors import Conflict, EvenkeelError
from core.settings import Settings


def main() -> int:
    """Started by `processes.command`; stops with its parent when it is given one."""
    setproctitle("evenkeel: up")
    try:
        return run(processes.settings(), processes.parent())
    except (EvenkeelError, OSError) as error:
        print(f"evenkeel up: {error}", file=sys.stderr)
        return 1


def run(settings: Settings, parent_descriptor: int | None = None) -> int:
    """Runs the service on a home until a signal; its exit code. Raises Conflict when the home or the port is taken."""
    events: Events = SimpleQueue()
    if parent_descriptor is not None:
        threading.Thread(target=stop_with, args=(parent_descriptor, events), daemon=True).start()
    listen_for_signals(events)
    home = settings.home.absolute()
    lock_descriptor = lock.hold(home)
    settings.service_file.unlink(missing_ok=True)  # a killed predecessor could not
    port = usable_port(settings.host, settings.port)
    overrides: Overrides = {"home": str(home), "host": settings.host, "port": port}
    prepared = subprocess.run(command(PREPARE, overrides), check=False, process_group=0)
    if prepared.returncode != 0:
        return 1
    # The end of this pipe that the children read closes, by EOF, with this process, however it ends.
    reading, _writing = os.pipe()
    children = [
        Child(name, command(code, overrides, str(reading)), (reading, lock_descriptor), events)
        for name, code in (("api", API), ("worker", WORKER))
    ]
    url = f"http://{_reachable(settings.host)}:{port}"
    threading.Thread(target=_announce, args=(settings, url), daemon=True).start()
    try:
        supervise(children, events)
    finally:
        stop(children, events)
        settings.service_file.unlink(missing_ok=True)
    return 0


def usable_port(host: str, port: int) -> int:
    """The port itself, or a free one for 0. Raises Conflict when it is taken, before anything is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Conflict(
                f"can not listen on {host} port {port} ({error.strerror}): give another --port, or 0 for a free one"
            ) from None
        return int(probe.getsockname()[1])


def _reachable(host: str) -> str:
    """An address of this machine for clients on it; the wildcard is none."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _announce(settings: Settings, url: str) -> None:
    """Once the API answers, says so and writes service.json, so that its readers never meet a closed port."""
    waited = 0.0
    while not _answers(url):
        pause = 0.02 if waited < 5.0 else 0.5
        time.sleep(pause)
        waited += pause
    _write_whole(settings.service_file, json.dumps({"url": url, "pid": os.getpid()}) + "\n")
    say(f"ready at {url} on {settings.home.absolute()} (Ctrl-C stops it)")


def _answers(url: str) -> bool:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5.0)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    return False


def _write_whole(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(file)
