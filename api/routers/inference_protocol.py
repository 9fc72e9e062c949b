"""The Open Inference Protocol v2 around `infer` (`api.inference.hot`): health, metadata, repository, statistics."""

from importlib.metadata import version
from typing import Annotated, Any

import orjson
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request

from api.auth import Authenticated, ModelWriter
from api.inference.bodies import body_of
from api.inference.columns import column_names
from api.inference.engine import ServedModel
from api.inference.hot import wanted_version
from api.inference.lanes import Lane, Tally
from api.keycache import Caller
from api.resources import Held, Resources
from core.errors import Forbidden, Malformed, NotFound, Unsupported
from core.queries import health, models

router = APIRouter(tags=["inference protocol"])
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
)
PLATFORM = "onnx_onnxv1"
LARGEST_BODY_BYTES = 64 * 1024


async def _reader(caller: Authenticated) -> Caller:
    if not caller.scopes & {"models:infer", "models:read"}:
        raise Forbidden("this key lacks the scope models:infer: use one that has it")
    return caller


Reader = Annotated[Caller, Depends(_reader)]


async def _asked(request: Request) -> dict[str, Any]:
    """The JSON object of a request to the repository; no body is an empty one."""
    content = await body_of(request.receive, dict(request.scope["headers"]), LARGEST_BODY_BYTES)
    if not content.strip():
        return {}
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the request is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Malformed("the request is no JSON object")
    return found


Asked = Annotated[dict[str, Any], Depends(_asked)]


@router.get("/v2/", include_in_schema=False)
@router.get("/v2")
async def server_metadata() -> dict[str, Any]:
    return {"name": "evenkeel", "version": version("evenkeel"), "extensions": EXTENSIONS}


@router.get("/v2/health/live")
async def server_live() -> dict[str, bool]:
    return {"live": True}


@router.get("/v2/health/ready")
def server_ready(resources: Held) -> dict[str, bool]:
    """200 while the database answers; 503 otherwise."""
    with resources.database.read() as connection:
        connection.execute(health.alive())
    return {"live": True, "ready": True}


@router.get("/v2/models")
def list_models(caller: Reader, resources: Held) -> dict[str, list[str]]:
    with resources.database.read() as connection:
        rows = connection.execute(models.index(caller.tenant_id)).all()
    return {"models": list(dict.fromkeys(row.name for row in rows))}


@router.get("/v2/models/stats")
async def all_statistics(caller: Reader, resources: Held) -> dict[str, Any]:
    rows = await run_sync(_index, resources, caller.tenant_id)
    ids = {row.id for row in rows}
    return {"model_stats": [_statistics(lane) for lane in resources.engine.lanes() if lane.key[0] in ids]}


@router.get("/v2/models/{name}")
@router.get("/v2/models/{name}/versions/{number}")
async def model_metadata(caller: Reader, name: str, resources: Held, number: str | None = None) -> dict[str, Any]:
    lane = await resources.resolver.find(wanted_version(caller.tenant_id, name, number))
    rows = await run_sync(_index, resources, caller.tenant_id)
    model: ServedModel = lane.model
    return {
        "name": name,
        "versions": [str(row.version) for row in rows if row.name == name],
        "platform": PLATFORM,
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, *model.shape]}],
        "outputs": [
            {"name": output, "datatype": "FP32", "shape": [-1, width]}
            for output, width in zip(model.outputs, model.widths, strict=True)
        ],
        "properties": _properties(lane),
    }


@router.get("/v2/models/{name}/ready")
@router.get("/v2/models/{name}/versions/{number}/ready")
async def model_ready(caller: Reader, name: str, resources: Held, number: str | None = None) -> dict[str, Any]:
    """Loads the version where it is not; 503 when that can not be."""
    await resources.resolver.find(wanted_version(caller.tenant_id, name, number))
    return {"name": name, "ready": True}


@router.get("/v2/models/{name}/stats")
@router.get("/v2/models/{name}/versions/{number}/stats")
async def statistics(caller: Reader, name: str, resources: Held, number: str | None = None) -> dict[str, Any]:
    """Since the version was loaded in this process; without a version, of every version in memory."""
    if number is not None:
        lane = await resources.resolver.find(wanted_version(caller.tenant_id, name, number))
        return {"model_stats": [_statistics(lane)]}
    model_id = await run_sync(_model_id, resources, caller.tenant_id, name)
    return {"model_stats": [_statistics(lane) for lane in resources.engine.lanes() if lane.key[0] == model_id]}


@router.post("/v2/repository/index")
async def repository_index(caller: Reader, asked: Asked, resources: Held) -> list[dict[str, str]]:
    ready = asked.get("ready", False)
    if not isinstance(ready, bool):
        raise Malformed("ready: give true or false")
    found = []
    for row in await run_sync(_index, resources, caller.tenant_id):
        loaded = resources.engine.holds((row.id, row.version))
        if loaded or not ready:
            state, reason = ("READY", "") if loaded else ("UNAVAILABLE", "unloaded")
            found.append({"name": row.name, "version": str(row.version), "state": state, "reason": reason})
    return found


@router.post("/v2/repository/models/{name}/load")
async def load(caller: ModelWriter, name: str, asked: Asked, resources: Held) -> dict[str, Any]:
    """Loads and warms up the version that `name` stands for. What a request brings itself is not loaded."""
    if _parameters(asked):
        raise Unsupported("config and file parameters are not served: models come from training, and are immutable")
    await resources.resolver.find(wanted_version(caller.tenant_id, name, None))
    return {"name": name, "load": True}


@router.post("/v2/repository/models/{name}/unload")
async def unload(caller: ModelWriter, name: str, asked: Asked, resources: Held) -> dict[str, Any]:
    """Takes every version out of memory; who waits is answered, and the next request loads again."""
    if _parameters(asked).keys() - {"unload_dependents"}:
        raise Malformed("parameters: only unload_dependents is known here")
    model_id = await run_sync(_model_id, resources, caller.tenant_id, name)
    for lane in resources.engine.lanes():
        if lane.key[0] == model_id:
            resources.engine.unload(lane.key)
    return {"name": name, "unload": True}


def _parameters(asked: dict[str, Any]) -> dict[str, Any]:
    parameters = asked.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Malformed("parameters: give an object")
    return parameters


def _properties(lane: Lane) -> dict[str, str]:
    population = lane.model.card.get("population") or {}
    return {
        "bn_statistics": "population" if lane.statistics_sha256 else "none",
        "bn_estimator": str(population.get("estimator", "none")),
        "statistics_sha256": lane.statistics_sha256 or "",
        "weights_sha256": lane.weights_sha256,
        "folded": "true",
        "batch_invariance": dict(lane.headers)[b"evenkeel-batch-invariance"].decode(),
        "execution_provider": lane.model.provider,
        **({"columns": orjson.dumps(columns).decode()} if (columns := column_names(lane.model)) else {}),
        **({} if lane.model.remark is None else {"remark": lane.model.remark}),
    }


def _index(resources: Resources, tenant_id: str) -> list[Any]:
    with resources.database.read() as connection:
        return list(connection.execute(models.index(tenant_id)))


def _model_id(resources: Resources, tenant_id: str, name: str) -> str:
    with resources.database.read() as connection:
        row = connection.execute(models.by_name(tenant_id, name)).one_or_none()
    if row is None:
        raise NotFound(f"there is no model {name}")
    return str(row.id)


def _statistics(lane: Lane) -> dict[str, Any]:
    tally = lane.tally
    return {
        "name": lane.name,
        "version": str(lane.version),
        "last_inference": tally.last_ms,
        "inference_count": tally.rows,
        "execution_count": tally.batches,
        "inference_stats": {
            "success": _part(tally.succeeded, tally.total_ns),
            "fail": _part(tally.failed + tally.expired + tally.rejected, tally.failed_ns),
            "queue": _part(tally.succeeded, tally.queue_ns),
            "compute_input": _part(tally.batches, tally.input_ns),
            "compute_infer": _part(tally.batches, tally.compute_ns),
            "compute_output": _part(tally.batches, tally.output_ns),
            "cache_hit": _part(0, 0),
            "cache_miss": _part(0, 0),
        },
        "batch_stats": [_of_size(tally, size) for size in sorted(tally.sizes)],
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": lane.model.bytes}],
    }


def _part(count: int, nanoseconds: int) -> dict[str, int]:
    return {"count": count, "ns": nanoseconds}


def _of_size(tally: Tally, size: int) -> dict[str, Any]:
    part = _part(tally.sizes[size], tally.size_ns[size])
    return {"batch_size": size, "compute_infer": part, "compute_input": _part(0, 0), "compute_output": _part(0, 0)}
