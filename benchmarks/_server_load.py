"""What a Postgres server does in a window of time, asked of its own statistics and of the operating system."""

import contextlib
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, Engine, text

SAMPLE_SECONDS = 0.5
COUNTERS = text(
    "SELECT d.xact_commit, d.xact_rollback, d.deadlocks, pg_current_wal_lsn() - '0/0' AS wal_bytes,"
    " j.n_tup_upd AS updates, j.n_tup_hot_upd AS hot_updates, j.n_dead_tup AS dead_rows,"
    " (SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'metric_points') AS points"
    " FROM pg_stat_database d, pg_stat_user_tables j"
    " WHERE d.datname = current_database() AND j.relname = 'jobs'"
)
ACTIVITY = text(
    "SELECT state, wait_event_type, wait_event, count(*) AS connections FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() GROUP BY 1, 2, 3"
)
PIDS = text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")


@dataclass(frozen=True)
class Moment:
    at: float
    cpu_seconds: float
    machine_seconds: float  # of CPU that anybody on this machine has used
    counters: Any


@dataclass
class Load:
    """Samples waits while a window lasts."""

    engine: Engine
    connections: int = 0  # at most
    connection_bytes: float = 0.0  # of memory that one has for itself, on average before the window
    lock_waits: list[int] = field(default_factory=list)
    waits: Counter[str] = field(default_factory=Counter)

    def window(self, begin_at: float, end_at: float) -> tuple[Moment, Moment]:
        """Blocks to the end of the window; what was counted at its begin and at its end."""
        with self.engine.connect() as connection:
            server = psutil.Process(connection.execute(text("SELECT pg_backend_pid()")).scalar_one()).ppid()
            _until(begin_at - 1.0)
            self.connection_bytes = _own_bytes(list(connection.execute(PIDS).scalars()))
            connection.rollback()
            _until(begin_at)
            before = _moment(connection, server)
            while time.time() < end_at:
                self._sample(connection)
                _until(min(end_at, time.time() + SAMPLE_SECONDS))
            return before, _moment(connection, server)

    def _sample(self, connection: Connection) -> None:
        rows = connection.execute(ACTIVITY).all()
        connection.rollback()
        self.connections = max(self.connections, sum(row.connections for row in rows))
        self.lock_waits.append(sum(row.connections for row in rows if row.wait_event_type == "Lock"))
        for row in rows:
            if row.state == "active":
                name = f"{row.wait_event_type}:{row.wait_event}" if row.wait_event else "CPU"
                self.waits[name] += row.connections

    def commonest_wait(self) -> str:
        """What active connections were seen at most often, with its share of all sightings."""
        if not self.waits:
            return "none"
        [(name, times)] = self.waits.most_common(1)
        return f"{name} {times / self.waits.total():.0%}"


def server_cpu_seconds(server_pid: int) -> float:
    """What a server and its processes have used, those included that have ended. Read straight from the kernel's
    files: while a library looks at two thousand processes, some of them end."""
    pids = Path(f"/proc/{server_pid}/task/{server_pid}/children").read_text().split()
    own = _cpu_ticks(server_pid)
    return float(sum(own) + sum(sum(_cpu_ticks(pid)[:2]) for pid in pids)) / os.sysconf("SC_CLK_TCK")


def _cpu_ticks(pid: int | str) -> list[int]:
    """User and system time of a process, and of its children that have ended; zeros when it has ended itself."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return [0, 0, 0, 0]
    return [int(value) for value in stat.rpartition(")")[2].split()[11:15]]


def _own_bytes(pids: list[int]) -> float:
    """On average, of a few of them."""
    sizes = []
    for pid in pids[:: max(1, len(pids) // 30)]:
        with contextlib.suppress(psutil.Error):
            sizes.append(psutil.Process(pid).memory_full_info().uss)
    return sum(sizes) / max(1, len(sizes))


def _moment(connection: Connection, server: int) -> Moment:
    counters = connection.execute(COUNTERS).one()
    connection.rollback()
    return Moment(time.time(), server_cpu_seconds(server), _machine_seconds(), counters)


def _machine_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _until(moment: float) -> None:
    threading.Event().wait(max(0.0, moment - time.time()))
