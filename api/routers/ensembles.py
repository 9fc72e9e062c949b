"""Ensembles: a job that makes several published versions answer as one model."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from api.auth import JobWriter
from api.bodies import read_json
from api.documentation import json_body
from api.ensembles import prepared, replayed
from api.identified import IdempotencyKey
from api.jobs import created
from api.query import KNOWN_QUERY
from api.resources import Held
from api.schemas.jobs import Job
from api.submission import submit
from core.bell import ring
from core.spec.ensemble import EnsembleRequest

router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[KNOWN_QUERY])
EXAMPLES = json_body(
    EnsembleRequest,
    {
        "of versions": {
            "members": [{"model": "digits", "version": 1}, {"model": "digits", "version": 2}],
            "publish": {"model": "digits-ensemble"},
        },
        "of jobs": {
            "members": [{"job_id": "job_01m8abstqs6ana1w2h7jrbgvbq"}, {"model": "digits", "alias": "latest"}],
            "publish": {"model": "digits-ensemble", "alias": None},
        },
    },
)


@router.post("", status_code=201, openapi_extra=EXAMPLES)
def create_ensemble(
    caller: JobWriter,
    body: Annotated[Any, Depends(read_json)],
    resources: Held,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Averages the class probabilities (of a regression the values) of several versions: a job that makes a version
    of one model, whose graph holds all of theirs. Members must take the same inputs and give the same labels."""
    row = replayed(resources.database, caller.tenant_id, body, idempotency_key)
    if row is not None:
        return created(response, row, True)
    submission = prepared(resources.database, caller.tenant_id, body, idempotency_key, resources.settings)
    row, again = submit(resources.database, submission)
    ring(resources.settings, row.needs_cuda)
    return created(response, row, again)
