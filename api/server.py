"""The process that serves the interface."""

import gc
import os
import signal
import socket
import threading
import time

import setproctitle
import uvicorn

from api.inference.direct import protocol_of
from api.main import create_app
from core.settings import Settings

GRACE_SECONDS = 1
"""What running requests get at the end; streams get nothing, as their clients come back by themselves."""


class Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """What is in memory now stays to the end: the garbage collector need not walk it again and again."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn waits for open connections first and tells the application after: streams must end before."""
        self.lifespan.state["resources"].streams.close()
        await super().shutdown(sockets)


def config_of(settings: Settings) -> uvicorn.Config:
    """The application with the protocol that answers its hot routes."""
    application = create_app(settings)
    return uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=protocol_of(application.hot),
        ws="none",
        lifespan="on",
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def serve(settings: Settings, parent_fd: int | None = None, listening_fd: int | None = None) -> None:
    """Serves until SIGTERM or SIGINT.

    `parent_fd`: the read end of a pipe that only the parent writes to; at its end of file the parent
    is dead, and this process ends too. `listening_fd`: a socket that listens already, shared with others.
    """
    setproctitle.setproctitle("evenkeel: api" if settings.role == "all" else "evenkeel: serve")
    if parent_fd is not None:
        threading.Thread(target=_end_with_parent, args=(parent_fd,), daemon=True, name="parent").start()
    config = config_of(settings)
    Server(config).run(None if listening_fd is None else [socket.socket(fileno=listening_fd)])


def _end_with_parent(parent_fd: int) -> None:
    while os.read(parent_fd, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)
