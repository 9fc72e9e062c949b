"""Recalibration: a job that gives a published model new population statistics."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from api.auth import JobWriter
from api.bodies import read_json
from api.documentation import json_body
from api.identified import IdempotencyKey, ModelName
from api.jobs import created
from api.query import KNOWN_QUERY
from api.recalibration import prepared, replayed
from api.resources import Held
from api.schemas.jobs import Job
from api.submission import submit
from core.bell import ring
from core.spec.recalibration import RecalibrationRequest

router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[KNOWN_QUERY])
EXAMPLES = json_body(
    RecalibrationRequest,
    {
        "other data": {"dataset": {"source": "fashion_mnist"}},
        "and serve it": {"alias": "latest", "dataset": {"source": "mnist"}, "publish": {"alias": "latest"}},
    },
)


@router.post("/{name}/recalibrate", status_code=201, openapi_extra=EXAMPLES)
def recalibrate(
    caller: JobWriter,
    name: ModelName,
    body: Annotated[Any, Depends(read_json)],
    resources: Held,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Measures population statistics on other data, for the same weights: a job that makes a new version of the
    model. Inputs are scaled as the model has it. No alias moves unless `publish.alias` names one."""
    row = replayed(resources.database, caller.tenant_id, name, body, idempotency_key)
    if row is not None:
        return created(response, row, True)
    submission = prepared(resources.database, caller.tenant_id, name, body, idempotency_key)
    row, again = submit(resources.database, submission)
    ring(resources.settings, row.needs_cuda)
    return created(response, row, again)
