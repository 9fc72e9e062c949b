"""How commands speak: tables for people, JSON for programs, one line for an error."""

import json
import math
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_COLUMNS = 240  # nothing is cut off where nobody looks at columns
SPARKS = "▁▂▃▄▅▆▇█"
COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}


def console() -> Console:
    """For standard output as it is now."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=PIPE_COLUMNS)


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], title: str | None = None) -> None:
    """Columns without a name have no heading. Texts are shown as they are, whatever brackets they hold. On a narrow
    terminal no text loses a letter, and the first column, by which a row is asked for, is not broken."""
    table = Table(box=None, pad_edge=False, show_header=any(columns), title=title, title_justify="left")
    for index, name in enumerate(columns):
        table.add_column(name, no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    console().print(table)


def coloured(status: str) -> Text:
    return Text(status, COLOURS.get(status, ""))


def number(value: float | None, digits: int = 4) -> str:
    """Short, and never in doubt about what is missing."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    return f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{100.0 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """For instance `4 s`, `3:05 min`, `2:10 h`."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def age(time: datetime | None) -> str:
    return "-" if time is None else f"{duration((datetime.now(UTC) - time).total_seconds())} ago"


def spark(values: Sequence[float], width: int = 32) -> str:
    """A line of blocks; a gap where a value is not finite."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    chosen = [values[index * len(values) // width] for index in range(width)] if len(values) > width else values
    return "".join(_block(value, low, high) for value in chosen)


def _block(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return " "
    share = (value - low) / (high - low) if high > low else 0.5
    return SPARKS[min(len(SPARKS) - 1, int(share * len(SPARKS)))]


def complain(message: str) -> None:
    """One line on standard error."""
    print(f"evenkeel: {' '.join(message.split())}", file=sys.stderr)
