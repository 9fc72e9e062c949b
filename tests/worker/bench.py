"""A node of one slot, and what a test wants to know of its jobs."""

import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from core.identifiers import new_id
from core.queries import checkpoints, events, jobs, metrics
from core.queries.events import EventDraft
from core.spec import JobSpec
from worker.node import Node
from worker.supervisor import run_next

TENANT = "ten_1"
DIGITS = {
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [32, 32], "dropout": 0.1},
    "training": {"steps": 400, "batch_size": 32, "evaluate_every": 100, "checkpoint_every": 50},
}
LONG = DIGITS | {"training": DIGITS["training"] | {"steps": 4000, "evaluate_every": 1000, "checkpoint_every": 200}}
FEW_CHECKPOINTS = DIGITS | {
    "training": DIGITS["training"] | {"steps": 6000, "evaluate_every": 6000, "checkpoint_every": 1500}
}


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true value of the condition; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        threading.Event().wait(0.01)
    raise AssertionError("the condition did not come true in time")


def trainer_of(job_id: str) -> psutil.Process:
    def find() -> psutil.Process | None:
        for process in psutil.process_iter(["cmdline"]):
            if f"evenkeel: trainer {job_id}" in " ".join(process.info["cmdline"] or []):
                return process
        return None

    return wait_until(find)


class Bench:
    """A node with one slot, and what a test wants to know of its jobs."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._threads: list[threading.Thread] = []

    def submit(self, body: dict[str, Any]) -> str:
        spec = JobSpec.model_validate(body)
        job_id = new_id("job")
        with self.node.database.write() as connection:
            connection.execute(
                jobs.create(
                    id=job_id,
                    tenant_id=TENANT,
                    spec=spec.model_dump(mode="json"),
                    spec_sha256=spec.digest(),
                    name=spec.name,
                    family=spec.network.family,
                    metadata=spec.metadata,
                    priority=spec.priority,
                    needs_cuda=spec.resources.device.startswith("cuda"),
                    flops_per_step=1,
                    steps=spec.training.steps,
                )
            )
            connection.execute(events.append(job_id, 1, 0, [EventDraft("status", "queued", {"status": "queued"})]))
        return job_id

    def run(self) -> None:
        assert run_next(self.node, 0)

    def run_aside(self) -> threading.Thread:
        thread = threading.Thread(target=run_next, args=(self.node, 0), daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def finish(self, thread: threading.Thread) -> None:
        thread.join(60)
        assert not thread.is_alive()

    def row(self, job_id: str) -> Any:
        with self.node.database.read() as connection:
            return connection.execute(jobs.one(TENANT, job_id)).one()

    def events(self, job_id: str) -> list[Any]:
        with self.node.database.read() as connection:
            return list(connection.execute(events.after(job_id, 0, 100_000)).all())

    def types(self, job_id: str) -> list[str]:
        return [event.type for event in self.events(job_id)]

    def checkpoints(self, job_id: str) -> list[Any]:
        with self.node.database.read() as connection:
            return list(connection.execute(checkpoints.of_job(job_id)).all())

    def points(self, job_id: str) -> dict[str, list[tuple[int, float | None]]]:
        """All recorded points but those that depend on the clock."""
        with self.node.database.read() as connection:
            series = connection.execute(metrics.all_series(job_id)).all()
            return {
                row.name: [(p.step, p.value) for p in connection.execute(metrics.points(row.id))]
                for row in series
                if not row.name.startswith("throughput/")
            }

    def wait_for_step(self, job_id: str, step: int) -> None:
        wait_until(lambda: self.row(job_id).step >= step)

    def wait_for_checkpoint(self, job_id: str, step: int) -> None:
        wait_until(lambda: any(row.step >= step for row in self.checkpoints(job_id)))

    def wait_for_steps_behind_a_checkpoint(self, job_id: str) -> int:
        """The checkpoint's step; recorded points lie behind it."""

        def look() -> int | None:
            rows = self.checkpoints(job_id)
            return rows[0].step if rows and self.row(job_id).step > rows[0].step else None

        return int(wait_until(look))

    def stop(self) -> None:
        self.node.draining.set()
        for thread in self._threads:
            thread.join(15)
