"""The reaper: the only one that takes an expired lease away. Any number of them may run."""

import logging

from sqlalchemy import Update

from core.bell import ring
from core.errors import Unavailable
from core.queries import events, leases
from worker.losses import loss_drafts
from worker.node import Node

log = logging.getLogger("evenkeel.worker")


def reap(node: Node) -> list[str]:
    """One sweep; the ids of the jobs whose lease had expired."""
    return _lose(node, leases.reap(node.settings.attempts_without_progress), "its worker was not heard of in time")


def reclaim(node: Node) -> list[str]:
    """What this node had leased before its last end. Only for the holder of the worker's lock."""
    statement = leases.reclaim(node.id, node.settings.attempts_without_progress)
    return _lose(node, statement, "its worker ended")


def run(node: Node) -> None:
    """Sweeps until the node drains."""
    while not node.draining.wait(node.settings.reaper_seconds):
        try:
            for job_id in reap(node):
                log.warning("%s: lease expired", job_id)
        except Unavailable as error:
            log.warning("reaper: %s", error.message)
        except Exception:  # without a reaper, a lost job would stay lost
            log.exception("reaper: this sweep failed")


def _lose(node: Node, statement: Update, reason: str) -> list[str]:
    with node.database.write() as connection:
        rows = connection.execute(statement).all()
        for row in rows:
            connection.execute(events.append(row.id, row.base, row.attempt, loss_drafts(row, reason)))
    for needs_cuda in {row.needs_cuda for row in rows if row.state == "queued"}:
        ring(node.settings, needs_cuda)  # else whoever is free would find them by a poll only
    return [row.id for row in rows]
