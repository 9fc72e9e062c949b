"""The interface behind a real socket, in a thread of the test, so that the test can look into it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from api.resources import Resources
from api.server import Server, config_of
from core.settings import Settings

DEADLINE_SECONDS = 20.0


@dataclass(frozen=True)
class Live:
    url: str
    resources: Resources
    stop: Callable[[], None]


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Waits for `condition`, not for a time."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.005)


@contextmanager
def live_server(settings: Settings) -> Iterator[Live]:
    config = config_of(settings.model_copy(update={"log_level": "warning"}))
    config.port = 0
    server = Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started, "the server starts")

    def stop() -> None:
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()

    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Live(f"http://127.0.0.1:{port}", server.lifespan.state["resources"], stop)
    finally:
        stop()
