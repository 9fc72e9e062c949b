"""`evenkeel api --workers N`: N processes of the interface on one port, which share one listening socket.

The kernel gives a connection to whoever accepts first, so a busy process takes fewer. A light parent, like
`cli.up`: it starts again whoever dies, and its children end with it.
"""

import os
import socket
import sys
import threading
from queue import SimpleQueue

from setproctitle import setproctitle

from cli import processes
from cli.children import Child, Events, listen_for_signals, say, stop, stop_with, supervise
from cli.processes import SHARING_API, Overrides, command
from core.errors import Conflict, EvenkeelError
from core.settings import Settings

BACKLOG = 2048


def main() -> int:
    """Started by `processes.command`; stops with its parent when it is given one."""
    setproctitle("evenkeel: api group")
    try:
        return run(processes.settings(), processes.overrides(), processes.parent())
    except (EvenkeelError, OSError) as error:
        print(f"evenkeel api: {error}", file=sys.stderr)
        return 1


def run(settings: Settings, overrides: Overrides, parent_descriptor: int | None = None) -> int:
    """Serves until a signal; its exit code. Raises Conflict when the port is taken."""
    events: Events = SimpleQueue()
    if parent_descriptor is not None:
        threading.Thread(target=stop_with, args=(parent_descriptor, events), daemon=True).start()
    listen_for_signals(events)
    listening = _listening(settings.host, settings.port)
    # The end of this pipe that the children read closes, by EOF, with this process, however it ends.
    reading, _writing = os.pipe()
    cores = len(os.sched_getaffinity(0))
    shared = overrides | {"predict_threads": settings.predict_threads or max(1, cores // settings.api_workers)}
    program = command(SHARING_API, shared, str(reading), str(listening.fileno()))
    children = [
        Child(f"api {number}", program, (reading, listening.fileno()), events) for number in range(settings.api_workers)
    ]
    say(f"{settings.api_workers} processes answer on {settings.host} port {listening.getsockname()[1]}")
    try:
        supervise(children, events)
    finally:
        stop(children, events)
        listening.close()
    return 0


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise Conflict(
            f"can not listen on {host} port {port} ({error.strerror}): give another --port, or 0 for a free one"
        ) from None
    return listening
