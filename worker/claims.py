"""Claims: how a job becomes this slot's."""

import logging
from dataclasses import dataclass, fields
from typing import Any

from core.errors import StorageFailed
from core.queries import checkpoints, events, leases
from core.queries.events import EventDraft
from worker.messages import CheckpointReference, Order, Thresholds
from worker.node import Node

log = logging.getLogger("evenkeel.worker")


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


def sweep(node: Node, claim: Claim) -> None:
    """Removes checkpoint files that no row names: what earlier attempts had written when they were killed.
    They are nobody's, because the claim has fenced out whoever might still name them."""
    if claim.attempt == 1:
        return
    named = {reference.name for reference in claim.checkpoints}
    try:
        for name in node.store.names(f"checkpoints/{claim.job_id}"):
            if name not in named:
                node.store.delete(name)
    except StorageFailed as error:
        log.warning("%s: files of earlier attempts stay behind: %s", claim.job_id, error.message)


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
        thresholds=Thresholds(**{part.name: getattr(settings, part.name) for part in fields(Thresholds)}),
        storage_patience_seconds=settings.storage_patience_seconds,
    )
