"""The client: everything that the service can do, over HTTP."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from core.spec import JobSpec
from evenkeel.comparisons import Comparisons
from evenkeel.datasets import Datasets
from evenkeel.discovery import locate
from evenkeel.documents import plain
from evenkeel.models import ModelRequests
from evenkeel.recipes import Recipes
from evenkeel.reports import LayerReports
from evenkeel.results import (
    Checkpoint,
    Event,
    Job,
    Key,
    Series,
    Validation,
)
from evenkeel.streaming import follow
from evenkeel.transport import Transport

STREAM_PATIENCE_SECONDS = 60.0

JobOrId = Job | str
Spec = JobSpec | Mapping[str, Any]


class Client(ModelRequests):
    """Talks to one service. On the machine where `evenkeel up` runs, `Client()` needs no arguments.

    `patience_seconds`: for how long a request that is safe to repeat is tried again while the service is away.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        home: Path | str | None = None,
        *,
        timeout_seconds: float = 30.0,
        patience_seconds: float = 5.0,
    ) -> None:
        self._transport = Transport(partial(locate, url, api_key, home), timeout_seconds, patience_seconds)
        self.comparisons = Comparisons(self._transport)
        self.recipes = Recipes(self._transport, self.comparisons)
        self.datasets = Datasets(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # Jobs

    def submit(self, spec: Spec, idempotency_key: str | None = None) -> Job:
        """One job, however often the request has to be sent: without a key of yours, a fresh one is made."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return Job.read(self._transport.json("POST", "/v1/jobs", body=plain(spec), headers=headers))

    def validate(self, spec: Spec) -> Validation:
        """What `submit` would say, without a job."""
        return Validation.read(self._transport.json("POST", "/v1/jobs:validate", body=plain(spec)))

    def job(self, job: JobOrId) -> Job:
        return Job.read(self._transport.json("GET", _of(job)))

    def jobs(
        self,
        *,
        status: str | Sequence[str] | None = None,
        name: str | None = None,
        family: str | None = None,
        metadata: Mapping[str, str] | None = None,
        comparison: str | None = None,
        latest_metrics: bool = False,
        limit: int = 20,
    ) -> list[Job]:
        """The newest jobs first, at most `limit`. `comparison`: members of this one; `"none"`: of no comparison."""
        params: dict[str, Any] = {
            "status": status if status is None or isinstance(status, str) else ",".join(status),
            "name": name,
            "family": family,
            "comparison": comparison,
            "include": "latest_metrics" if latest_metrics else None,
        }
        params |= {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        return [Job.read(raw) for raw in self._transport.pages("/v1/jobs", params, limit)]

    def wait(self, job: JobOrId, timeout_seconds: float | None = None) -> Job:
        """The job once it has ended, however it ended. Raises WaitTimedOut; the job goes on then."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        here = self.job(job)
        if here.terminal:
            return here
        newest = self._transport.json("GET", f"{_of(job)}/events", params={"order": "desc", "limit": 1})["data"]
        after = newest[0]["seq"] - 1 if newest else 0
        for _ in follow(self._transport, here.id, after, STREAM_PATIENCE_SECONDS, deadline):
            pass
        return self.job(job)

    def stream(
        self, job: JobOrId, after: int = 0, *, patience_seconds: float = STREAM_PATIENCE_SECONDS
    ) -> Iterator[Event]:
        """Events with `seq` above `after`, each once and in order, until the job's `end` event. A broken
        connection is opened again; NotReachable is raised when the service stays away for `patience_seconds`."""
        return follow(self._transport, _id(job), after, patience_seconds)

    def events(self, job: JobOrId, after: int = 0, limit: int = 1000) -> list[Event]:
        """Recorded events with `seq` above `after`, without waiting for more."""
        return [Event.read(raw) for raw in self._transport.pages(f"{_of(job)}/events", {"order": "asc"}, limit, after)]

    def metrics(
        self,
        job: JobOrId,
        names: Sequence[str] | None = None,
        since_step: int = 0,
        max_points: int | None = None,
    ) -> dict[str, Series]:
        """Series by name, thinned out by the service where one has more than `max_points`."""
        params = {
            "names": ",".join(names) if names else None,
            "since_step": since_step,
            "max_points": max_points,
        }
        answer = self._transport.json("GET", f"{_of(job)}/metrics", params=params)
        return {name: Series.read(name, raw) for name, raw in answer["series"].items()}

    def cancel(self, job: JobOrId, force: bool = False) -> Job:
        """Stops it after a last checkpoint; with `force`, at once."""
        return Job.read(self._transport.json("POST", f"{_of(job)}/cancel", body={"force": force}))

    def pause(self, job: JobOrId) -> Job:
        return Job.read(self._transport.json("POST", f"{_of(job)}/pause"))

    def resume(self, job: JobOrId) -> Job:
        return Job.read(self._transport.json("POST", f"{_of(job)}/resume"))

    def retry(self, job: JobOrId, idempotency_key: str | None = None) -> Job:
        """A new job with the spec of one that has ended; one, however often the request has to be sent."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return Job.read(self._transport.json("POST", f"{_of(job)}/retry", headers=headers))

    def fork(
        self,
        job: JobOrId,
        changes: Mapping[str, Any] | None = None,
        checkpoint: str = "newest",
        idempotency_key: str | None = None,
    ) -> Job:
        """A job that goes on from a checkpoint (`newest`, `best`, an id) of this one; `changes`: values by path."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        body = {"changes": dict(changes or {}), "checkpoint": checkpoint}
        return Job.read(self._transport.json("POST", f"{_of(job)}/fork", body=body, headers=headers))

    def logs(self, job: JobOrId) -> str:
        return self._transport.send("GET", f"{_of(job)}/logs", headers={"Accept": "text/plain"}).text

    def checkpoints(self, job: JobOrId) -> list[Checkpoint]:
        answer = self._transport.json("GET", f"{_of(job)}/checkpoints")
        return [Checkpoint.read(raw) for raw in answer["data"]]

    def layers(self, job: JobOrId, step: int | None = None) -> LayerReports:
        """How the normalization layers stood at the newest evaluation, or the newest up to `step`."""
        return LayerReports.read(self._transport.json("GET", f"{_of(job)}/layers", params={"step": step}))

    def network(self, job: JobOrId) -> list[dict[str, Any]]:
        """The job's network as its list of layers, with shapes, parameters and FLOPs."""
        layers: list[dict[str, Any]] = self._transport.json("GET", f"{_of(job)}/network")["data"]
        return layers

    def create_key(self, name: str, scopes: Sequence[str], expires_at: str | None = None) -> Key:
        """The only answer that has the key's text. `expires_at`: RFC 3339."""
        body = {"name": name, "scopes": list(scopes)} | ({"expires_at": expires_at} if expires_at else {})
        return Key.read(self._transport.json("POST", "/v1/keys", body=body, repeatable=False))

    def keys(self) -> list[Key]:
        return [Key.read(raw) for raw in self._transport.json("GET", "/v1/keys")["data"]]

    def revoke_key(self, key_id: str) -> None:
        self._transport.send("DELETE", f"/v1/keys/{quote(key_id, safe='')}")

    def nodes(self) -> list[dict[str, Any]]:
        """Worker nodes with their slots, GPUs and versions, and when each was last heard of."""
        nodes: list[dict[str, Any]] = self._transport.json("GET", "/v1/nodes")["data"]
        return nodes

    def architectures(self) -> dict[str, Any]:
        """Network families with the JSON schema of their options."""
        answer: dict[str, Any] = self._transport.json("GET", "/v1/architectures")
        return answer


def _id(job: JobOrId) -> str:
    return job.id if isinstance(job, Job) else job


def _of(job: JobOrId) -> str:
    return f"/v1/jobs/{quote(_id(job), safe='')}"
