"""What the interface says of itself: bodies that we read by hand, examples, and the problem document."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.schemas.events import EventPage, LogPage
from api.schemas.jobs import CancelOptions
from api.schemas.keys import KeyRequest
from api.schemas.metrics import Metrics
from api.schemas.models import AliasRequest
from api.schemas.predictions import Predictions, Rows
from api.schemas.problems import Problem
from core.spec import ComparisonSpec, JobSpec
from core.spec.ensemble import EnsembleRequest
from core.spec.fork import ForkRequest
from core.spec.recalibration import RecalibrationRequest
from core.spec.recipe import RecipeRun

REFERENCE = "#/components/schemas/{model}"
BODIES: tuple[type[BaseModel], ...] = (
    JobSpec,
    ComparisonSpec,
    RecalibrationRequest,
    EnsembleRequest,
    ForkRequest,
    RecipeRun,
    CancelOptions,
    KeyRequest,
    AliasRequest,
    Rows,
)
ANSWERS: tuple[type[BaseModel], ...] = (Problem, EventPage, LogPage, Metrics, Predictions)

JOB_EXAMPLE: dict[str, Any] = {
    "name": "mnist-bn",
    "metadata": {"team": "vision"},
    "dataset": {"source": "mnist"},
    "network": {
        "family": "mlp",
        "hidden": [100, 100, 100],
        "activation": "sigmoid",
        "initialization": {"kind": "normal", "scale": 0.1},
    },
    "batch_norm": True,
    "optimizer": {"kind": "sgd", "learning_rate": 0.5},
    "training": {"steps": 5000, "batch_size": 60, "seed": 0},
}
FORK_EXAMPLES: dict[str, Any] = {
    "go on": {"changes": {"training.steps": 10000}},
    "from the best, more slowly": {"checkpoint": "best", "changes": {"optimizer.learning_rate": 0.01}},
}
SMALL_COMPARISON_EXAMPLE: dict[str, Any] = {
    "base": {"dataset": {"source": "digits"}, "network": {"family": "mlp"}},
    "vary": {"batch_norm": [True, False]},
}
COMPARISON_EXAMPLES: dict[str, Any] = {
    "smallest": SMALL_COMPARISON_EXAMPLE,
    "mnist": {
        "name": "how-high-may-the-rate-be",
        "base": {name: value for name, value in JOB_EXAMPLE.items() if name not in ("name", "metadata", "batch_norm")},
        "vary": {"batch_norm": [True, False], "optimizer.learning_rate": [0.05, 0.5, 5.0]},
        "seeds": 3,
        "target": "baseline_best",
        "maximum_running": 2,
    },
    "by name": {
        "base": {"dataset": {"source": "digits"}, "network": {"family": "mlp"}},
        "vary": {"variants": {"before": {}, "after": {"batch_norm.placement": "after_activation"}}},
        "seeds": [0, 1, 2, 3, 4],
        "baseline": "before",
    },
}
RECIPE_EXAMPLES: dict[str, Any] = {
    "quick": {},
    "full, on other data": {"size": "full", "data": "fashion_mnist", "changes": {"seeds": 5}},
}
SMALL_JOB_EXAMPLE: dict[str, Any] = {"dataset": {"source": "digits"}, "network": {"family": "mlp"}}


def json_body(schema: type[BaseModel], examples: dict[str, Any], required: bool = True) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its JSON body by hand."""
    content = {
        "schema": {"$ref": REFERENCE.format(model=schema.__name__)},
        "examples": {name: {"value": value} for name, value in examples.items()},
    }
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def answers(status: int, description: str, *media: tuple[str, type[BaseModel] | None]) -> dict[int | str, Any]:
    """`responses` of a route that writes its answer by hand."""
    content = {
        name: {"schema": {"$ref": REFERENCE.format(model=schema.__name__)} if schema else {"type": "string"}}
        for name, schema in media
    }
    return {status: {"description": description, "content": content}}


def _hot(tag: str, summary: str, description: str, body: dict[str, Any], *names: str) -> dict[str, Any]:
    """The description of a route that is answered before any router sees it."""
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    operation = {"tags": [tag], "summary": summary, "description": description, "parameters": parameters}
    security: dict[str, Any] = {"security": [{"HTTPBearer": []}]}
    return {"post": operation | body | security | {"responses": {"200": {"description": "The answer"}}}}


FLOWER = {"sepal length (cm)": 5.1, "sepal width (cm)": 3.5, "petal length (cm)": 1.4, "petal width (cm)": 0.2}
PREDICT = _hot(
    "predict",
    "Predict",
    "Rows in the data's own units, by column name or in order; images also as base64 PNG or JPEG, or one as the body "
    "with its own media type. `?version=` or `?alias=` choose. An answer never depends on the other rows.",
    json_body(
        Rows,
        {
            "columns in order": {"rows": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]},
            "columns by name": {"rows": [FLOWER]},
        },
    ),
    "name",
)
INFER_EXAMPLE = {
    "inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}],
    "outputs": [{"name": "probabilities"}],
}
INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}, "examples": {"one row": {"value": INFER_EXAMPLE}}},
            "application/octet-stream": {},
        },
    }
}
INFER = "Inference of the Open Inference Protocol v2, JSON or binary; the version may be a number or an alias."
HOT_PATHS = {
    "/v1/models/{name}/predict": PREDICT,
    "/v2/models/{name}/infer": _hot("inference protocol", "Infer", INFER, INFER_BODY, "name"),
    "/v2/models/{name}/versions/{number}/infer": _hot(
        "inference protocol", "Infer with a version", INFER, INFER_BODY, "name", "number"
    ),
}


def describe(app: FastAPI) -> None:
    """Makes `app.openapi` the whole description, written once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _schema(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components |= _definitions(BODIES, "validation") | _definitions(ANSWERS, "serialization")
    schema["paths"] |= HOT_PATHS
    problem = {"application/problem+json": {"schema": {"$ref": REFERENCE.format(model="Problem")}}}
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if path.startswith("/v1"):
                operation["responses"]["default"] = {"description": "A problem document", "content": problem}
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    return schema


def _definitions(models: tuple[type[BaseModel], ...], mode: Any) -> dict[str, Any]:
    _, definitions = models_json_schema([(model, mode) for model in models], ref_template=REFERENCE)
    found: dict[str, Any] = definitions["$defs"]
    return found
