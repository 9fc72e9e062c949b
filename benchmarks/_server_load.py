"""What a Postgres server does in a window of time, asked of its own statistics and of the operating system."""

import contextlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psutil
from sqlalchemy import Connection, Engine, text

SAMPLE_SECONDS = 0.25
METER_SECONDS = 2.0
COUNTERS = text(
    "SELECT d.xact_commit, d.xact_rollback, d.deadlocks, pg_current_wal_lsn() - '0/0' AS wal_bytes,"
    " j.n_tup_upd AS updates, j.n_tup_hot_upd AS hot_updates, j.n_dead_tup AS dead_rows,"
    " (SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'metric_points') AS points"
    " FROM pg_stat_database d, pg_stat_user_tables j"
    " WHERE d.datname = current_database() AND j.relname = 'jobs'"
)
ACTIVITY = text(
    "SELECT state, wait_event_type, wait_event FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@dataclass(frozen=True)
class Moment:
    at: float
    cpu_seconds: float
    machine_seconds: float  # of CPU that anybody on this machine has used
    counters: Any


@dataclass
class Load:
    """A thread that samples waits while the window lasts; `before` and `after` hold the counters."""

    engine: Engine
    connections: int = 0
    lock_waits: list[int] = field(default_factory=list)
    waits: Counter[str] = field(default_factory=Counter)

    def window(self, begin_at: float, end_at: float) -> tuple[Moment, Moment]:
        """Blocks to the end of the window."""
        with self.engine.connect() as connection:
            server = psutil.Process(connection.execute(text("SELECT pg_backend_pid()")).scalar_one()).parent()
            if server is None:
                raise RuntimeError("the server process is not on this machine")
            meter = CpuMeter(server)
            _until(begin_at)
            before = _moment(connection, meter)
            metered_at = before.at
            while time.time() < end_at:
                self._sample(connection)
                if time.time() > metered_at + METER_SECONDS:
                    metered_at = time.time()
                    meter.read()
                _until(min(end_at, time.time() + SAMPLE_SECONDS))
            return before, _moment(connection, meter)

    def _sample(self, connection: Connection) -> None:
        rows = connection.execute(ACTIVITY).all()
        connection.rollback()
        self.connections = max(self.connections, len(rows))
        self.lock_waits.append(sum(row.wait_event_type == "Lock" for row in rows))
        for row in rows:
            if row.state == "active":
                self.waits[f"{row.wait_event_type}:{row.wait_event}" if row.wait_event else "CPU"] += 1

    def commonest_wait(self) -> str:
        """What active connections were seen at most often, with its share of all sightings."""
        if not self.waits:
            return "none"
        [(name, times)] = self.waits.most_common(1)
        return f"{name} {times / self.waits.total():.0%}"


class CpuMeter:
    """CPU of a server and its processes. Those that end between two readings take what they used since the last
    with them, so it is to be read every few seconds."""

    def __init__(self, server: psutil.Process) -> None:
        self._server = server
        self._seen: dict[psutil.Process, float] = {}

    def read(self) -> float:
        """Seconds that these processes have used since the first of them was seen, and before."""
        for process in [self._server, *self._server.children()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                self._seen[process] = times.user + times.system
        return sum(self._seen.values())


def _moment(connection: Connection, meter: CpuMeter) -> Moment:
    counters = connection.execute(COUNTERS).one()
    connection.rollback()
    return Moment(time.time(), meter.read(), _machine_seconds(), counters)


def _machine_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _until(moment: float) -> None:
    threading.Event().wait(max(0.0, moment - time.time()))
