"""The doorway to the database: a read transaction and a write transaction, nothing else."""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, TimeoutError

from core.errors import Unavailable
from core.settings import Settings

BUSY_TIMEOUT_MS = 10_000
SIGNS_OF_NO_SCHEMA = ("no such table", "unable to open database file")
RETRY_AFTER_SECONDS = 2
SILENCE_MS = 30_000  # a connection whose other end says nothing for so long is given up


class Database:
    """Two engines on SQLite, because a transaction that will write must begin IMMEDIATE: one that
    reads first and writes later fails at once when another writer was between, whatever the timeout."""

    def __init__(self, url: str, pool_size: int = 5, overflow: int = 20, timeout_seconds: float = 5.0) -> None:
        """Up to `pool_size` connections are kept, `overflow` more are opened under load, and who finds none
        free, or no database that takes a new one, within `timeout_seconds` gets Unavailable."""
        pool = {"pool_size": pool_size, "max_overflow": overflow, "pool_timeout": timeout_seconds}
        if make_url(url).get_backend_name() == "sqlite":
            self._reader = _sqlite_engine(url, "BEGIN", pool)
            self._writer = _sqlite_engine(url, "BEGIN IMMEDIATE", pool)
        else:
            self._reader = self._writer = _server_engine(url, pool)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction, rolled back at the end. Raises Unavailable when the database is away."""
        with _unavailable_when_away(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, committed at the end, rolled back when the block raises."""
        with _unavailable_when_away(), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        self._reader.dispose()
        self._writer.dispose()

    def borrowed_connections(self) -> int:
        """Connections that are out of the pool now; a stream must never hold one."""
        return sum(engine.pool.checkedout() for engine in {self._reader, self._writer})  # type: ignore[attr-defined]


def open_database(settings: Settings) -> Database:
    return Database(
        settings.resolved_database_url,
        settings.database_pool_size,
        settings.database_pool_overflow,
        settings.database_pool_timeout_seconds,
    )


def insert_many(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Rows that all have the same columns, in the fastest way that the database offers: COPY on Postgres
    writes four times as many a second as INSERT."""
    if connection.dialect.name != "postgresql":
        connection.execute(insert(table), rows)
        return
    columns = list(rows[0])
    driver = connection.dialect.loaded_dbapi
    try:
        with (
            closing(connection.connection.cursor()) as cursor,
            cursor.copy(f"COPY {table.name} ({', '.join(columns)}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row([row[name] for name in columns])
    except (driver.OperationalError, driver.InterfaceError) as error:  # not wrapped: the driver is used directly
        raise Unavailable(
            f"the database does not answer ({_short(error)}); try again", retry_after_seconds=RETRY_AFTER_SECONDS
        ) from error


def _sqlite_engine(url: str, begin: str, pool: dict[str, Any]) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False}, **pool)

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # else the driver begins on its own, and not IMMEDIATE
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "journal_size_limit=67108864",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _server_engine(url: str, pool: dict[str, Any]) -> Engine:
    """Without these limits, which the URL may set otherwise, a server that vanished without a word would hold
    whoever asks it for minutes."""
    limits = {
        "connect_timeout": max(2, math.ceil(pool["pool_timeout"])),
        "tcp_user_timeout": SILENCE_MS,
        "keepalives_idle": SILENCE_MS // 3000,
        "keepalives_interval": SILENCE_MS // 6000,
    }
    given = make_url(url).query
    connect_args = {name: value for name, value in limits.items() if name not in given}
    return create_engine(url, pool_pre_ping=True, pool_recycle=1800, connect_args=connect_args, **pool)


@contextmanager
def _unavailable_when_away() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, TimeoutError) as error:
        reason = _short(error)
        empty = any(sign in reason for sign in SIGNS_OF_NO_SCHEMA)
        remedy = "run `evenkeel migrate` on this home first" if empty else "try again"
        raise Unavailable(
            f"the database does not answer ({reason}); {remedy}", retry_after_seconds=RETRY_AFTER_SECONDS
        ) from error


def _short(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(error).__name__
