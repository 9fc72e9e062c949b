"""Claims: how a job becomes this slot's."""

from dataclasses import dataclass
from typing import Any

from core.queries import checkpoints, events, leases
from core.queries.events import EventDraft
from worker.messages import CheckpointReference, Order
from worker.node import Node


@dataclass(frozen=True)
class Claim:
    """A job that is ours while its fence stands on the row. `row` is the job as it was claimed."""

    row: Any
    checkpoints: tuple[CheckpointReference, ...]

    @property
    def job_id(self) -> str:
        return str(self.row.id)

    @property
    def fence(self) -> int:
        return int(self.row.fence)

    @property
    def attempt(self) -> int:
        return int(self.row.attempt)


def claim_next(node: Node, slot: int) -> Claim | None:
    """The next queued job, or None when there is nothing to do. One transaction."""
    with node.database.write() as connection:
        row = connection.execute(
            leases.claim_next(node.owner(slot), node.settings.lease_seconds, cuda=node.gpus > 0)
        ).one_or_none()
        if row is None:
            return None
        data = {"status": "running", "attempt": row.attempt, "worker": node.id, "slot": slot}
        draft = EventDraft("status", f"attempt {row.attempt} runs", data)
        connection.execute(events.append(row.id, row.base, row.attempt, [draft]))
        found = connection.execute(checkpoints.of_job(row.id)).all()
    return Claim(row, tuple(CheckpointReference(c.name, c.sha256, c.bytes, c.step) for c in found))


def order_for(node: Node, slot: int, claim: Claim) -> Order:
    settings = node.settings
    return Order(
        job_id=claim.job_id,
        spec=claim.row.spec,
        attempt=claim.attempt,
        fence=claim.fence,
        artifact_url=settings.resolved_artifact_url,
        data_dir=str(settings.resolved_data_dir),
        data_mirror_url=settings.data_mirror_url,
        checkpoints=claim.checkpoints,
        gpu=slot % node.gpus if node.gpus else None,
        artifact_cache_dir=str(settings.artifact_cache_dir),
        artifact_cache_bytes=settings.artifact_cache_bytes,
    )
