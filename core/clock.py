"""The database's clock, as one SQL expression: no lease ever depends on the clock of a node."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

MICROSECONDS = 1_000_000


class now_us(FunctionElement[int]):
    """Microseconds since 1970 UTC. SQLite counts in milliseconds."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_us, "sqlite")
def _sqlite(element: now_us, compiler: Any, **options: Any) -> str:
    return "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"


@compiles(now_us, "postgresql")
def _postgresql(element: now_us, compiler: Any, **options: Any) -> str:
    return "(CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT))"


def microseconds(seconds: float) -> int:
    return int(seconds * MICROSECONDS)


def rfc3339(time_us: int | None) -> str | None:
    """For instance `2026-11-22T17:21:00.123000Z`."""
    if time_us is None:
        return None
    whole, rest = divmod(time_us, MICROSECONDS)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"
