"""Comparisons in the client: submit, watch, report."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self
from urllib.parse import quote

from core.spec import ComparisonSpec
from evenkeel.documents import plain
from evenkeel.errors import WaitTimedOut
from evenkeel.results import Job, Raw, optional_time
from evenkeel.transport import Transport

WATCH_SECONDS = 1.0
REPORT_ACCEPTS = {"csv": "text/csv", "md": "text/markdown", "svg": "image/svg+xml", "html": "text/html"}
ReportFormat = Literal["csv", "md", "svg", "html"]


@dataclass(frozen=True)
class Comparison:
    """As the service had it when it was asked. `members` counts them: total, queued, running, succeeded, diverged, …"""

    id: str
    name: str
    status: str
    terminal: bool
    metric: str
    baseline: str
    seeds: tuple[int, ...]
    variants: tuple[str, ...]
    members: Mapping[str, int]
    fraction: float
    created_at: datetime
    finished_at: datetime | None
    raw: Raw = field(repr=False, compare=False)
    _of: "Comparisons" = field(repr=False, compare=False)

    def watch(self, timeout_seconds: float | None = None) -> "Iterator[Comparison]":
        """The comparison whenever it has moved on, until all its members have ended. Raises WaitTimedOut."""
        return self._of.watch(self, timeout_seconds)

    def wait(self, timeout_seconds: float | None = None) -> "Comparison":
        """The comparison once all its members have ended. Raises WaitTimedOut; it goes on then."""
        *_, last = self.watch(timeout_seconds)
        return last

    def refresh(self) -> "Comparison":
        return self._of.get(self)

    def jobs(self, latest_metrics: bool = False) -> Sequence[Job]:
        return self._of.members(self, latest_metrics)

    def report(self) -> dict[str, Any]:
        return self._of.report(self)

    def report_as(self, format: ReportFormat) -> str:
        return self._of.report_as(self, format)

    def cancel(self) -> "Comparison":
        return self._of.cancel(self)

    @classmethod
    def read(cls, raw: Raw, of: "Comparisons") -> Self:
        return cls(
            id=raw["id"],
            name=raw["name"],
            status=raw["status"],
            terminal=raw["terminal"],
            metric=raw["metric"],
            baseline=raw["baseline"],
            seeds=tuple(raw["seeds"]),
            variants=tuple(variant["name"] for variant in raw["variants"]),
            members=raw["members"],
            fraction=raw["progress"]["fraction"],
            created_at=datetime.fromisoformat(raw["created_at"]),
            finished_at=optional_time(raw.get("finished_at")),
            raw=raw,
            _of=of,
        )


class Comparisons:
    """`client.comparisons`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def submit(self, spec: ComparisonSpec | Mapping[str, Any], idempotency_key: str | None = None) -> Comparison:
        """One comparison, however often the request has to be sent: without a key of yours, a fresh one is made."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return self._read(self._transport.json("POST", "/v1/comparisons", body=plain(spec), headers=headers))

    def validate(self, spec: ComparisonSpec | Mapping[str, Any]) -> dict[str, Any]:
        """Its members and what they would cost, without a job."""
        answer: dict[str, Any] = self._transport.json("POST", "/v1/comparisons:validate", body=plain(spec))
        return answer

    def get(self, comparison: Comparison | str) -> Comparison:
        return self._read(self._transport.json("GET", _at(comparison)))

    def list(self, limit: int = 20, name: str | None = None) -> Sequence[Comparison]:
        """The newest first, at most `limit`."""
        return [self._read(raw) for raw in self._transport.pages("/v1/comparisons", {"name": name}, limit)]

    def members(self, comparison: Comparison | str, latest_metrics: bool = False) -> Sequence[Job]:
        """Its jobs in the order in which they are queued; a retry stands beside the job that it repeats."""
        params = {"order": "asc", "include": "latest_metrics" if latest_metrics else None}
        return [Job.read(raw) for raw in self._transport.pages(f"{_at(comparison)}/members", params, None)]

    def report(self, comparison: Comparison | str) -> dict[str, Any]:
        """Figures, sentences and timing, over what is recorded now."""
        answer: dict[str, Any] = self._transport.json("GET", f"{_at(comparison)}/report")
        return answer

    def report_as(self, comparison: Comparison | str, format: ReportFormat) -> str:
        """The report as a table (`csv`, `md`), a picture (`svg`) or a page (`html`)."""
        headers = {"Accept": REPORT_ACCEPTS[format]}
        return self._transport.send("GET", f"{_at(comparison)}/report.{format}", headers=headers).text

    def cancel(self, comparison: Comparison | str) -> Comparison:
        return self._read(self._transport.json("POST", f"{_at(comparison)}/cancel"))

    def watch(self, comparison: Comparison | str, timeout_seconds: float | None = None) -> Iterator[Comparison]:
        """The comparison whenever it has moved on, until all its members have ended. Raises WaitTimedOut."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        last: Comparison | None = None
        while last is None or not last.terminal:
            if last is not None:
                if deadline is not None and time.monotonic() >= deadline:
                    raise WaitTimedOut(f"{last.id} is still {last.status}: ask again, or wait longer")
                time.sleep(WATCH_SECONDS)
            here = self.get(comparison)
            if here != last:
                yield here
            last = here

    def _read(self, raw: Raw) -> Comparison:
        return Comparison.read(raw, self)


def _at(comparison: Comparison | str) -> str:
    identifier = comparison if isinstance(comparison, str) else comparison.id
    return f"/v1/comparisons/{quote(identifier, safe='')}"
