"""Comparisons: submit, validate, list, look at, cancel; their members, and their report."""

from statistics import fmean
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response

from api.auth import JobReader, JobWriter
from api.bodies import read_json
from api.comparisons import Admitted, admit_comparison
from api.documentation import COMPARISON_EXAMPLES, json_body
from api.estimate import HISTORY, estimate
from api.identified import ComparisonId, IdempotencyKey
from api.jobs import page_of_members
from api.members import answer_of, cancel_comparison, find_comparison, looked_up, members_of, submit_comparison
from api.pagination import Page, Paged, unknown_cursor
from api.query import KNOWN_QUERY
from api.reports.loading import report_of
from api.reports.page import POLICY, page_of
from api.reports.shapes import Report
from api.reports.svg import svg_of
from api.reports.tables import csv_of, markdown_of
from api.resources import Held
from api.schemas.comparisons import Comparison, ComparisonValidation, PlannedVariant, comparison_of
from api.schemas.jobs import Job
from core.queries import comparisons, jobs
from core.spec import ComparisonSpec

router = APIRouter(prefix="/v1", tags=["comparisons"], dependencies=[KNOWN_QUERY])
Body = Annotated[Any, Depends(read_json)]
EXAMPLES = json_body(ComparisonSpec, COMPARISON_EXAMPLES)
ReportFormat = Literal["csv", "md", "svg", "html"]
MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "svg": "image/svg+xml",
    "html": "text/html; charset=utf-8",
}


@router.post("/comparisons", status_code=201, openapi_extra=EXAMPLES)
def create_comparison(
    caller: JobWriter, body: Body, resources: Held, response: Response, idempotency_key: IdempotencyKey = None
) -> Comparison:
    """Submits a comparison: all its members are jobs, committed when this answers."""
    settings = resources.settings
    known = looked_up(resources.database, caller.tenant_id, body, idempotency_key)
    found = admit_comparison(known, settings)
    row, replayed = submit_comparison(resources.database, caller.tenant_id, found, idempotency_key, settings)
    return answer_of(resources, response, found, row, replayed)


@router.post("/comparisons:validate", openapi_extra=EXAMPLES)
def validate_comparison(caller: JobReader, body: Body, resources: Held) -> ComparisonValidation:
    """Which members a comparison would have, and what they would cost; nothing is queued."""
    found = admit_comparison(looked_up(resources.database, caller.tenant_id, body), resources.settings)
    with resources.database.read() as connection:
        history = connection.execute(jobs.recent_step_rates(HISTORY)).all()
    variants = _planned(found, history)
    return ComparisonValidation(
        name=found.spec.name,
        spec_sha256=found.digest(),
        metric=found.metric,
        baseline=found.baseline,
        seeds=list(found.seeds),
        members=found.tried * len(found.seeds),
        estimated_seconds=round(
            len(found.seeds) * found.tried * fmean(variant.estimated_seconds for variant in variants), 3
        ),
        variants=variants,
    )


@router.get("/comparisons")
def get_comparisons(
    caller: JobReader,
    query: Paged,
    resources: Held,
    name: Annotated[str | None, Query(max_length=63)] = None,
) -> Page[Comparison]:
    """Comparisons of this key's tenant."""
    with resources.database.read() as connection:
        cursor = None
        if query.cursor is not None:
            cursor = connection.execute(comparisons.one(caller.tenant_id, query.cursor)).one_or_none()
            if cursor is None:
                raise unknown_cursor(query)
        statement = comparisons.page(caller.tenant_id, query.rows, query.descending, cursor, name)
        kept, has_more = query.cut(connection.execute(statement).all())
        members = members_of(connection, [row.id for row in kept])
    data = [comparison_of(row, members[row.id]) for row in kept]
    return Page[Comparison].of(data, [item.id for item in data], has_more)


@router.get("/comparisons/{comparison_id}")
def get_comparison(caller: JobReader, comparison_id: ComparisonId, resources: Held) -> Comparison:
    """Its status is that of its members; `members` counts how they ended."""
    with resources.database.read() as connection:
        row = find_comparison(connection, caller.tenant_id, comparison_id)
        return comparison_of(row, members_of(connection, [comparison_id])[comparison_id])


@router.post("/comparisons/{comparison_id}/cancel", status_code=202)
def post_cancel(caller: JobWriter, comparison_id: ComparisonId, resources: Held, response: Response) -> Comparison:
    """Stops all members: 202 when this did it, 200 when they were already told or done."""
    row, changed = cancel_comparison(resources.database, caller.tenant_id, comparison_id)
    response.status_code = 202 if changed else 200
    with resources.database.read() as connection:
        return comparison_of(row, members_of(connection, [comparison_id])[comparison_id])


@router.get("/comparisons/{comparison_id}/members")
def get_members(
    caller: JobReader,
    comparison_id: ComparisonId,
    query: Paged,
    resources: Held,
    include: Annotated[Literal["latest_metrics"] | None, Query()] = None,
) -> Page[Job]:
    """The members as jobs, those that were retried and their retries included."""
    with resources.database.read() as connection:
        find_comparison(connection, caller.tenant_id, comparison_id)
        return page_of_members(connection, caller.tenant_id, comparison_id, query, include is not None)


@router.get("/comparisons/{comparison_id}/report")
def get_report(caller: JobReader, comparison_id: ComparisonId, resources: Held) -> Report:
    """Means with 95 % intervals, paired differences, steps to the target and curves, over what is recorded now."""
    return report_of(resources.database, resources.artifacts, caller.tenant_id, comparison_id)


@router.get(
    "/comparisons/{comparison_id}/report.{format}",
    response_class=Response,
    responses={200: {"content": {name.split(";")[0]: {} for name in MEDIA_TYPES.values()}}},
)
def get_report_as(caller: JobReader, comparison_id: ComparisonId, format: ReportFormat, resources: Held) -> Response:
    """The report as a table (`csv`, `md`), a picture (`svg`) or a page that needs nothing else (`html`)."""
    report = report_of(resources.database, resources.artifacts, caller.tenant_id, comparison_id)
    content = {
        "csv": lambda: csv_of(report),
        "md": lambda: markdown_of(report),
        "svg": lambda: svg_of(report.figures, report.name),
        "html": lambda: page_of(report),
    }[format]()
    return Response(content, media_type=MEDIA_TYPES[format], headers={"Content-Security-Policy": POLICY})


def _planned(found: Admitted, history: Any) -> list[PlannedVariant]:
    return [
        PlannedVariant(
            name=item.variant.name,
            changes=item.variant.changes,
            spec=item.spec.model_dump(mode="json"),
            parameters=item.plan.parameters,
            flops_per_step=item.plan.flops_per_step,
            estimated_seconds=estimate(item.spec, item.plan.flops_per_step, history).seconds,
            warnings=list(item.plan.warnings),
        )
        for item in found.variants
    ]
