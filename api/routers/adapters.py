"""The same models for clients of TensorFlow Serving and of MLflow. Thin: rows in, the engine, rows out."""

from importlib.metadata import version
from io import StringIO
from typing import Annotated, Any

import numpy as np
import orjson
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response

from api.auth import Predictor
from api.inference.bodies import body_of
from api.inference.categories import by_column
from api.inference.hot import wanted_version
from api.inference.lanes import Array, Lane
from api.inference.pictures import pictures
from api.inference.rows import array_of
from api.keycache import Caller
from api.resources import Held, Resources
from core.errors import Malformed, NotFound, TooLarge, UnsupportedMedia
from core.queries import models

router = APIRouter(tags=["adapters"])
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
ModelQuery = Annotated[str | None, Query(description="Which model; may be left out where there is one only")]


@router.post("/v1/models/{name}:predict", response_class=Response)
@router.post("/v1/models/{name}/versions/{number}:predict", response_class=Response)
@router.post("/v1/models/{name}/labels/{number}:predict", response_class=Response)
async def tensorflow_predict(
    caller: Predictor, name: str, request: Request, resources: Held, number: str | None = None
) -> Response:
    """`instances`, one a row, → `predictions`; `inputs`, all rows in one tensor, → `outputs`."""
    lane = await resources.resolver.find(wanted_version(caller.tenant_id, name, number))
    body = await _json(request, resources)
    forms = body.keys() & {"instances", "inputs"}
    if len(forms) != 1:
        raise Malformed("give either instances, one a row, or inputs, all rows in one tensor")
    form = forms.pop()
    rows = _named(body[form], form)
    answers = await _answers(rows, lane, request, resources)
    key = "predictions" if form == "instances" else "outputs"
    return _reply({key: answers.tolist()}, lane)


@router.post("/invocations", response_class=Response)
async def mlflow_invocations(
    caller: Predictor,
    request: Request,
    resources: Held,
    model: ModelQuery = None,
    number: Annotated[str | None, Query(alias="version", description="A version or an alias")] = None,
) -> Response:
    """The forms of MLflow: dataframe_split, dataframe_records, instances, inputs, or CSV with a header line."""
    name = model if model is not None else await run_sync(_only_model, resources, caller)
    lane = await resources.resolver.find(wanted_version(caller.tenant_id, name, number))
    media = request.headers.get("content-type", "application/json").split(";")[0].strip()
    if media not in ("application/json", "text/csv"):
        raise UnsupportedMedia("send application/json or text/csv")
    if media == "text/csv":
        rows = _csv(await _body(request, resources))
    else:
        rows = _mlflow_rows(await _json(request, resources))
    answers = await _answers(rows, lane, request, resources)
    labels = lane.model.labels
    if labels is None:
        return _reply({"predictions": answers.reshape(-1).tolist()}, lane)
    return _reply({"predictions": [labels[best] for best in answers.argmax(axis=1).tolist()]}, lane)


@router.get("/ping")
@router.get("/health")
async def ping() -> Response:
    return Response(b"\n", media_type="application/json")


@router.get("/version")
async def mlflow_version() -> Response:
    return Response(version("evenkeel"), media_type="text/plain")


def _only_model(resources: Resources, caller: Caller) -> str:
    with resources.database.read() as connection:
        names = {row.name for row in connection.execute(models.index(caller.tenant_id))}
    if len(names) != 1:
        raise NotFound(f"{len(names)} models are served here: name one, /invocations?model=…")
    return str(names.pop())


async def _body(request: Request, resources: Resources) -> bytes:
    return await body_of(request.receive, dict(request.scope["headers"]), resources.settings.maximum_body_bytes)


async def _json(request: Request, resources: Resources) -> dict[str, Any]:
    try:
        body = orjson.loads(await _body(request, resources))
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Malformed("the body is no JSON object")
    return body


def _mlflow_rows(body: dict[str, Any]) -> list[Any]:
    forms = body.keys() & set(FORMS)
    if len(forms) != 1 or body.keys() - {*forms, "params"}:
        raise Malformed(f"give exactly one of {', '.join(FORMS)}, and params if need be")
    form = forms.pop()
    if form != "dataframe_split":
        return _named(body[form], form)
    frame = body[form]
    if not isinstance(frame, dict) or not all(isinstance(frame.get(part), list) for part in ("columns", "data")):
        raise Malformed("dataframe_split: give columns and data")
    columns, data = frame["columns"], frame["data"]
    if not all(isinstance(row, list) and len(row) == len(columns) for row in data):
        raise Malformed("dataframe_split: each row of data has one value a column")
    if not all(isinstance(column, str) for column in columns):
        unnamed: list[Any] = data
        return unnamed
    return [dict(zip(columns, row, strict=True)) for row in data]


def _named(value: Any, form: str) -> list[Any]:
    """Rows, given as they are or under the input's name; an image may be `{"b64": …}`."""
    if isinstance(value, dict) and value.keys() == {"input"}:
        value = value["input"]
    if not isinstance(value, list):
        raise Malformed(f"{form}: give a list of rows")
    if all(isinstance(row, dict) and len(row) == 1 for row in value):
        return [row.get("input", row.get("b64", row)) for row in value]
    return value


def _csv(content: bytes) -> list[Any]:
    try:
        lines = StringIO(content.decode()).read().splitlines()
        columns = [name.strip().strip('"') for name in lines[0].split(",")]
        data = [[float(value) for value in line.split(",")] for line in lines[1:] if line.strip()]
    except (UnicodeDecodeError, ValueError, IndexError) as error:
        raise Malformed(f"the body is no CSV of numbers with a header line: {error}") from None
    if any(len(row) != len(columns) for row in data):
        raise Malformed("the CSV has lines with more or fewer values than columns")
    return [dict(zip(columns, row, strict=True)) for row in data]


async def _answers(rows: list[Any], lane: Lane, request: Request, resources: Resources) -> Array:
    limit = resources.settings.maximum_predict_rows
    if len(rows) > limit:
        raise TooLarge(f"{len(rows)} rows, and one request may have {limit}: send several")
    array = await run_sync(_array, rows, lane)
    if not len(array):
        return np.empty((0, lane.model.widths[lane.model.answer]), np.float32)
    outputs = await resources.answering.answers(lane, array, request.receive)
    answer: Array = outputs[lane.model.answer]
    return answer


def _array(rows: list[Any], lane: Lane) -> Array:
    if rows and isinstance(rows[0], str):
        return pictures(rows, lane.model, "/rows")
    inputs = by_column(rows, lane.model.fields, lane.model.columns)
    return array_of(inputs, lane.model.shape, lane.model.columns)


def _reply(content: dict[str, Any], lane: Lane) -> Response:
    headers = {name.decode(): value.decode() for name, value in lane.headers}
    return Response(orjson.dumps(content), media_type="application/json", headers=headers)
