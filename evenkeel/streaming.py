"""A job's events as they happen. The connection may break as often as it likes; each `seq` comes once, in order."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx

from evenkeel.errors import EvenkeelClientError, NotReachable, WaitTimedOut
from evenkeel.results import Event
from evenkeel.transport import Backoff, Transport

SILENCE_SECONDS = 45.0  # three missed heartbeats: the connection is dead


def follow(
    transport: Transport, job_id: str, after: int, patience_seconds: float, deadline: float | None = None
) -> Iterator[Event]:
    """Events after `after` until the `end` event.

    Raises NotReachable when the service stays away for `patience_seconds`, WaitTimedOut at `deadline` (monotonic),
    and whatever the service says that trying again would not change.
    """
    backoff = Backoff(patience_seconds)
    last = after
    while True:
        try:
            for event in _connection(transport, job_id, last, deadline):
                backoff.reset()
                if event is None:
                    return
                if event.seq > last:
                    last = event.seq
                    yield event
                    if event.type == "end":
                        return
            cause: EvenkeelClientError = NotReachable(f"the event stream of {job_id} keeps breaking off; try again")
        except EvenkeelClientError as error:
            if not (error.retryable or isinstance(error, NotReachable)):
                raise
            cause = error
        _check(deadline, job_id)
        backoff.sleep(cause)


def _connection(transport: Transport, job_id: str, last: int, deadline: float | None) -> Iterator[Event | None]:
    """Events of one connection; None when the service says that there are no more."""
    silence = SILENCE_SECONDS if deadline is None else max(0.05, min(SILENCE_SECONDS, deadline - time.monotonic()))
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
    with transport.stream(f"/v1/jobs/{job_id}/events", {}, headers, silence) as response:
        if response.status_code == httpx.codes.NO_CONTENT:
            yield None
            return
        for data in _messages(response.iter_bytes()):
            _check(deadline, job_id)
            if data:
                yield Event.read(data)


def _messages(chunks: Iterator[bytes]) -> Iterator[Any]:
    """Decoded `data:` of each message, None for each comment. Lines end at newline only: JSON may hold U+2028."""
    rest = b""
    data: list[bytes] = []
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in map(bytes.rstrip, lines):
            if line.startswith(b"data:"):
                data.append(line[5:].lstrip())
            elif line.startswith(b":"):
                yield None
            elif not line and data:
                yield json.loads(b"\n".join(data))
                data = []


def _check(deadline: float | None, job_id: str) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise WaitTimedOut(
            f"{job_id} has not ended in time; it goes on: wait longer, or cancel it", code="wait_timed_out"
        )
