"""Jobs: submit, validate, list, look at, cancel, pause, resume, retry, fork."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request, Response

from api import forking, transitions
from api.auth import JobReader, JobWriter
from api.bodies import NO_BODY, parse, read_json, validated
from api.datasets import pinned
from api.documentation import FORK_EXAMPLES, JOB_EXAMPLE, SMALL_JOB_EXAMPLE, json_body
from api.estimate import HISTORY, estimate
from api.identified import IdempotencyKey, JobId
from api.inference.engine import NO_CUDA
from api.jobs import JobFilters, created, find_job, job_filters, latest_metrics, list_jobs
from api.pagination import Page, Paged
from api.query import KNOWN_QUERY
from api.recalibration import admitted_again
from api.resources import Held
from api.schemas.jobs import CancelOptions, Checkpoint, Job, Validation, checkpoint_of, job_of
from api.schemas.network import LayerInPlace, in_place
from api.schemas.nodes import Node, node_of
from api.submission import Submission, admitted, submit
from bn_models.architecture import layers_of, place
from bn_models.receipt import CUDA, available_providers
from core.bell import ring
from core.errors import Conflict
from core.queries import checkpoints, jobs, nodes
from core.spec import JobSpec
from core.spec.fork import ForkRequest

router = APIRouter(prefix="/v1", tags=["jobs"], dependencies=[KNOWN_QUERY])
Body = Annotated[Any, Depends(read_json)]
EXAMPLES = json_body(JobSpec, {"smallest": SMALL_JOB_EXAMPLE, "mnist": JOB_EXAMPLE})


@router.post("/jobs", status_code=201, openapi_extra=EXAMPLES)
def create_job(
    caller: JobWriter, body: Body, resources: Held, response: Response, idempotency_key: IdempotencyKey = None
) -> Job:
    """Submits a job. It is committed when this answers."""
    known = pinned(resources.database, caller.tenant_id, body, idempotency_key)
    spec, plan = admitted(known, resources.settings)
    row, replayed = submit(resources.database, Submission(caller.tenant_id, spec, plan.flops_per_step, idempotency_key))
    ring(resources.settings, row.needs_cuda)
    return created(response, row, replayed)


@router.post("/jobs:validate", openapi_extra=EXAMPLES)
def validate_job(caller: JobReader, body: Body, resources: Held) -> Validation:
    """What a spec would run, with its defaults, size and estimated time; nothing is queued."""
    spec, plan = admitted(pinned(resources.database, caller.tenant_id, body), resources.settings)
    with resources.database.read() as connection:
        history = connection.execute(jobs.recent_step_rates(HISTORY)).all()
        workers = [node_of(row) for row in connection.execute(nodes.everyone())]
    return Validation(
        spec=spec.model_dump(mode="json"),
        spec_sha256=spec.digest(),
        parameters=plan.parameters,
        flops_per_step=plan.flops_per_step,
        steps_per_epoch=plan.steps_per_epoch,
        batches=plan.batches,
        layers=[in_place(item) for item in plan.placed],
        estimate=estimate(spec, plan.flops_per_step, history),
        warnings=[*plan.warnings, *_waits(spec, workers), *_answered_otherwise(spec)],
    )


@router.get("/jobs")
def get_jobs(
    caller: JobReader, query: Paged, filters: Annotated[JobFilters, Depends(job_filters)], resources: Held
) -> Page[Job]:
    """Jobs of this key's tenant; filters are status, family, name, comparison, time and `metadata[key]=value`."""
    return list_jobs(resources.database, caller.tenant_id, query, filters)


@router.get("/jobs/{job_id}")
def get_job(caller: JobReader, job_id: JobId, resources: Held) -> Job:
    with resources.database.read() as connection:
        row = find_job(connection, caller.tenant_id, job_id)
        return job_of(row, latest_metrics(connection, [job_id]).get(job_id, {}))


CANCEL = json_body(CancelOptions, {"gracefully": {}, "at once": {"force": True}}, required=False)


@router.post("/jobs/{job_id}/cancel", status_code=202, openapi_extra=CANCEL)
async def cancel_job(caller: JobWriter, job_id: JobId, request: Request, resources: Held, response: Response) -> Job:
    """Stops a job: 202 when this did it, 200 when it was already told or done."""
    content = await request.body()
    options = validated(CancelOptions, parse(content)) if content.strip() else CancelOptions()
    cancel = partial(transitions.cancel, resources.database, caller.tenant_id, job_id, options.force)
    return _changed(response, *await run_sync(cancel))


@router.post("/jobs/{job_id}/pause", status_code=202, dependencies=[NO_BODY])
def pause_job(caller: JobWriter, job_id: JobId, resources: Held, response: Response) -> Job:
    """Lets a running job write a checkpoint and give up its slot."""
    return _changed(response, *transitions.pause(resources.database, caller.tenant_id, job_id))


@router.post("/jobs/{job_id}/resume", status_code=202, dependencies=[NO_BODY])
def resume_job(caller: JobWriter, job_id: JobId, resources: Held, response: Response) -> Job:
    """Puts a paused job back into the queue; it goes on from its checkpoint."""
    row, changed = transitions.resume(resources.database, caller.tenant_id, job_id)
    ring(resources.settings, row.needs_cuda)
    return _changed(response, row, changed)


@router.post("/jobs/{job_id}/retry", status_code=201, dependencies=[NO_BODY])
def retry_job(
    caller: JobWriter, job_id: JobId, resources: Held, response: Response, idempotency_key: IdempotencyKey = None
) -> Job:
    """A new job of the same spec. If the training of the old one had ended, only what comes after is repeated."""
    with resources.database.read() as connection:
        source = find_job(connection, caller.tenant_id, job_id)
    transitions.require_terminal(source)
    spec, flops_per_step = admitted_again(source.spec, resources.settings)
    submission = Submission(caller.tenant_id, spec, flops_per_step, idempotency_key, retry_of=job_id)
    row, replayed = submit(resources.database, submission)
    ring(resources.settings, row.needs_cuda)
    return created(response, row, replayed)


@router.post("/jobs/{job_id}/fork", status_code=201, openapi_extra=json_body(ForkRequest, FORK_EXAMPLES))
def fork_job(
    caller: JobWriter,
    job_id: JobId,
    body: Body,
    resources: Held,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """A new job that goes on from a checkpoint of this one, with some fields changed."""
    database, settings = resources.database, resources.settings
    row = forking.replayed(database, caller.tenant_id, job_id, body, idempotency_key)
    if row is not None:
        return created(response, row, True)
    submission = forking.prepared(database, caller.tenant_id, job_id, body, idempotency_key, settings)
    row, replayed = submit(database, submission)
    ring(settings, row.needs_cuda)
    return created(response, row, replayed)


@router.get("/jobs/{job_id}/checkpoints")
def get_checkpoints(caller: JobReader, job_id: JobId, resources: Held) -> Page[Checkpoint]:
    """Checkpoints that are kept, the newest first."""
    with resources.database.read() as connection:
        find_job(connection, caller.tenant_id, job_id)
        data = [checkpoint_of(row) for row in connection.execute(checkpoints.of_job(job_id))]
    return Page[Checkpoint].of(data, [item.id for item in data])


@router.get("/jobs/{job_id}/network")
def get_network(caller: JobReader, job_id: JobId, resources: Held) -> Page[LayerInPlace]:
    """The network of a job as its list of layers, with shapes, parameters and FLOPs."""
    with resources.database.read() as connection:
        row = find_job(connection, caller.tenant_id, job_id)
    spec = JobSpec.model_validate(row.spec)
    if spec.ensemble is not None:
        raise Conflict(f"job {job_id} is an ensemble, which has no network of its own: ask the jobs of its members")
    facts = spec.dataset.facts
    outputs = spec.recalibration.outputs if spec.recalibration else facts.outputs
    layers = layers_of(spec.network, spec.batch_norm, facts.input_shape, outputs)
    data = [in_place(item) for item in place(layers, facts.input_shape)]
    return Page[LayerInPlace].of(data, [item.name for item in data])


def _answered_otherwise(spec: JobSpec) -> list[str]:
    """What its version asks of this service's ONNX Runtime in vain."""
    serving = spec.publish.serving if spec.publish else None
    if serving is None or serving.provider != "cuda" or CUDA in available_providers():
        return []
    return [f"/publish/serving/provider: {NO_CUDA}"]


def _waits(spec: JobSpec, workers: list[Node]) -> Iterator[str]:
    device = spec.resources.device
    if device.startswith("cuda") and not any(worker.alive and worker.gpus for worker in workers):
        yield f"resources.device is {device}, and no worker that is there has a GPU: the job waits until one comes"


def _changed(response: Response, row: Any, changed: bool) -> Job:
    response.status_code = 202 if changed else 200
    return job_of(row)
