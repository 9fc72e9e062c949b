"""Metric series of a job: for a plot, or as CSV."""

from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.auth import JobReader
from api.documentation import answers
from api.identified import JobId
from api.jobs import find_job
from api.query import KNOWN_QUERY
from api.resources import Held
from api.schemas.metrics import Metrics
from api.series import csv_lines, plotted, series_ids

router = APIRouter(prefix="/v1", tags=["metrics"], dependencies=[KNOWN_QUERY])
LARGEST_STEP = 2**63 - 1
ANSWERS = answers(
    200, "Series, or with `Accept: text/csv` all points", ("application/json", Metrics), ("text/csv", None)
)


@router.get("/jobs/{job_id}/metrics", responses=ANSWERS, response_class=Response)
def get_metrics(
    caller: JobReader,
    job_id: JobId,
    request: Request,
    resources: Held,
    names: Annotated[
        str | None, Query(description="Series, with commas; default: all", examples=["train/loss"])
    ] = None,
    since_step: Annotated[int, Query(ge=0, le=LARGEST_STEP)] = 0,
    max_points: Annotated[int, Query(ge=2, le=100_000, description="A series; its extremes stay")] = 2000,
    format: Annotated[Literal["json", "csv"] | None, Query(description="Wins over Accept")] = None,
) -> Response:
    """Values that are no number are null, and named under `nonfinite`; CSV has every point as it was recorded.

    A name under which nothing is recorded yet is an empty series.
    """
    as_csv = format == "csv" or (format is None and "text/csv" in request.headers.get("accept", ""))
    with resources.database.read() as connection:
        find_job(connection, caller.tenant_id, job_id)
        series = series_ids(connection, job_id, names.split(",") if names else None)
        if not as_csv:
            found = {name: plotted(connection, row, since_step, max_points) for name, row in series.items()}
    if as_csv:
        return StreamingResponse(csv_lines(resources.database, series, since_step), media_type="text/csv")
    content = {"object": "metrics", "job_id": job_id, "series": found}
    return Response(orjson.dumps(content), media_type="application/json")
