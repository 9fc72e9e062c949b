"""Checkpoints and layer reports as rows, written inside the transaction of a tick."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from core.identifiers import new_id
from core.queries import checkpoints, layers
from worker.messages import CheckpointWritten, LayersReported

KEPT_CHECKPOINTS = 2
KEPT_REPORTS = 20
"""Reports on layers that a job keeps, the newest; a report of a deep network has some tens of kilobytes."""


def write_checkpoints(
    connection: Connection, job_id: str, attempt: int, pending: Sequence[CheckpointWritten]
) -> list[Any]:
    """Names the new files and un-names all but the newest two and the best; answers the rows of those files
    that are to be deleted once this is committed."""
    if not pending:
        return []
    recorded = {row.step: row for row in connection.execute(checkpoints.of_job(job_id))}
    replaced = []
    for written in pending:
        if written.best:
            connection.execute(checkpoints.forget_best(job_id))
        if written.checkpoint.step in recorded:
            replaced.append(recorded[written.checkpoint.step])
            connection.execute(checkpoints.remove([recorded[written.checkpoint.step].id]))
        _name(connection, job_id, attempt, written)
    rows = connection.execute(checkpoints.of_job(job_id)).all()
    obsolete = [row for row in rows[KEPT_CHECKPOINTS:] if not row.best]
    if obsolete:
        connection.execute(checkpoints.remove([row.id for row in obsolete]))
    kept = {row.name for row in rows} - {row.name for row in obsolete}
    ours = f"checkpoints/{job_id}/"  # a retry shares the file of the job that it repeats
    return [row for row in [*obsolete, *replaced] if row.name not in kept and row.name.startswith(ours)]


def write_layer_reports(connection: Connection, job_id: str, pending: Sequence[LayersReported]) -> None:
    """A later report of a step takes the place of an earlier one: of the same evaluation, done again after a
    resume, or of the end of training, which is reported by the statistics that are published."""
    for report in {report.step: report for report in pending}.values():
        connection.execute(layers.remove(job_id, report.step))
        connection.execute(layers.create(job_id=job_id, step=report.step, final=report.final, layers=report.layers))
    if pending:
        connection.execute(layers.keep_newest(job_id, KEPT_REPORTS))


def _name(connection: Connection, job_id: str, attempt: int, written: CheckpointWritten) -> None:
    reference = written.checkpoint
    connection.execute(
        checkpoints.create(
            id=new_id("ckpt"),
            job_id=job_id,
            step=reference.step,
            attempt=attempt,
            name=reference.name,
            sha256=reference.sha256,
            bytes=reference.bytes,
            complete=written.complete,
            monitor=written.monitor,
            score=written.score,
            best=written.best,
        )
    )
