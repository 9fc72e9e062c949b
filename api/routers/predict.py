"""Predictions from a frozen model. No number passes through a schema: bytes, array, session, bytes."""

import asyncio
import time

import orjson
from fastapi import APIRouter, Request, Response

from api.auth import Predictor
from api.documentation import answers, json_body
from api.identified import ModelName
from api.inference.categories import by_column
from api.inference.engine import ServedModel
from api.inference.rows import array_of, parse_rows
from api.models import resolve
from api.resources import Held, Resources
from api.routers.models import WantedAlias, WantedVersion
from api.schemas.predictions import Predictions, Rows
from core.queries import models

router = APIRouter(prefix="/v1/models", tags=["predict"])
FLOWER = {"sepal length (cm)": 5.1, "sepal width (cm)": 3.5, "petal length (cm)": 1.4, "petal width (cm)": 0.2}
EXAMPLES = json_body(
    Rows,
    {
        "columns in order": {"rows": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]},
        "columns by name": {"rows": [FLOWER]},
    },
)
ANSWERS = answers(200, "One prediction a row", ("application/json", Predictions))


@router.post("/{name}/predict", responses=ANSWERS, openapi_extra=EXAMPLES, response_class=Response)
async def predict(
    caller: Predictor,
    name: ModelName,
    request: Request,
    resources: Held,
    version: WantedVersion = None,
    alias: WantedAlias = None,
) -> Response:
    """Rows in the data's own units. An answer never depends on the other rows of the request."""
    content = await request.body()
    loop = asyncio.get_running_loop()
    answer = await loop.run_in_executor(
        resources.engine.threads, _answer, resources, caller.tenant_id, name, version, alias, content
    )
    return Response(answer, media_type="application/json")


def _answer(
    resources: Resources, tenant_id: str, name: str, version: int | None, alias: str | None, content: bytes
) -> bytes:
    began = time.perf_counter()
    model, number, digest = _served(resources, tenant_id, name, version, alias)
    rows = parse_rows(content, resources.settings.maximum_predict_rows)
    inputs = by_column(rows, model.fields, model.columns)
    predictions = model.predict(array_of(inputs, model.shape, model.columns))
    resources.meters.predicted_rows.labels(name).inc(len(predictions))
    resources.meters.predict_latency.observe(time.perf_counter() - began)
    return orjson.dumps({"predictions": predictions, "model": name, "version": number, "statistics_sha256": digest})


def _served(
    resources: Resources, tenant_id: str, name: str, version: int | None, alias: str | None
) -> tuple[ServedModel, int, str | None]:
    """(model, its version, digest of its population statistics); no connection is held while a file is read."""
    with resources.database.read() as connection:
        found = resolve(connection, tenant_id, name, version, alias)
        key = (found.model_id, found.version)
        model = resources.engine.loaded(key)
        if model is None:
            card = connection.execute(models.card(*key)).scalar_one()
    if model is None:
        model = resources.engine.load(key, name, found.artifacts["onnx"], card)
    return model, found.version, found.statistics_sha256
