"""How the normalization layers of a job stand."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.auth import JobReader
from api.identified import JobId
from api.jobs import find_job
from api.query import KNOWN_QUERY
from api.resources import Held
from api.schemas.layers import LayerReports, reports_of
from bn_models.architecture import layers_of, place
from bn_models.architecture.statistics import statistical
from core.clock import rfc3339
from core.queries import layers
from core.spec import JobSpec
from core.states import TERMINAL

router = APIRouter(prefix="/v1", tags=["jobs"], dependencies=[KNOWN_QUERY])
LARGEST_STEP = 2**63 - 1


@router.get("/jobs/{job_id}/layers")
def get_layers(
    caller: JobReader,
    job_id: JobId,
    resources: Held,
    step: Annotated[int | None, Query(ge=0, le=LARGEST_STEP, description="The newest report up to this step")] = None,
) -> LayerReports:
    """Every layer that normalizes by moments over samples, as it stood at the newest evaluation: gamma, beta, mean,
    variance, dead and exploding channels, updates."""
    with resources.database.read() as connection:
        job = find_job(connection, caller.tenant_id, job_id)
        row = connection.execute(layers.newest(job_id, step)).one_or_none()
        steps = list(connection.execute(layers.steps(job_id)).scalars())
    reason = None if row is not None else _reason(job, steps)
    return reports_of(job_id, row, steps, reason, rfc3339(row.created_at) if row is not None else None)


def _reason(job: Any, steps: list[int]) -> str:
    if job.spec.get("ensemble"):
        return "an ensemble has no layers of its own: ask the jobs of its members"
    if not has_statistics(JobSpec.model_validate(job.spec)):
        return "no layer of this network has statistics: it is not batch-normalized"
    if steps:
        return f"the first report that is kept is of step {steps[0]}"
    if job.state in TERMINAL:
        return f"the job has {job.state} before its first evaluation"
    return "the first report comes with the first evaluation"


def has_statistics(spec: JobSpec) -> bool:
    facts = spec.dataset.facts
    outputs = spec.recalibration.outputs if spec.recalibration else facts.outputs
    placed = place(layers_of(spec.network, spec.batch_norm, facts.input_shape, outputs), facts.input_shape)
    return bool(statistical(placed))
