"""Models, their versions, aliases, population statistics and files."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import Connection

from api.auth import ModelReader
from api.drifting import drift_report
from api.identified import ModelName
from api.inference.resolution import Wanted
from api.models import aliases_by_model, find_model, find_version, resolve
from api.pagination import Page, Paged, PageQuery, bad_query, unknown_cursor
from api.population import page_of_layers
from api.query import KNOWN_QUERY
from api.resources import Held
from api.schemas.models import (
    LARGEST_VERSION,
    Drift,
    Model,
    ModelVersion,
    Population,
    model_of,
    version_of,
)
from core.errors import NotFound
from core.queries import models

router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[KNOWN_QUERY])
VersionNumber = Annotated[int, Path(ge=1, le=LARGEST_VERSION)]
WantedVersion = Annotated[int | None, Query(ge=1, le=LARGEST_VERSION, description="Default: the alias")]
WantedAlias = Annotated[str | None, Query(max_length=63, description="Default: latest, or else the newest version")]
MEDIA_TYPES = {
    "onnx": "application/octet-stream",
    "safetensors": "application/octet-stream",
    "probe": "application/octet-stream",
    "card": "application/json",
}
SUFFIXES = {"onnx": "onnx", "safetensors": "safetensors", "probe": "probe.safetensors", "card": "json"}


@router.get("")
def get_models(caller: ModelReader, query: Paged, resources: Held) -> Page[Model]:
    with resources.database.read() as connection:
        cursor = None
        if query.cursor is not None:
            cursor = connection.execute(models.one(caller.tenant_id, query.cursor)).one_or_none()
            if cursor is None:
                raise unknown_cursor(query)
        rows = connection.execute(models.page(caller.tenant_id, query.rows, query.descending, cursor)).all()
        kept, has_more = query.cut(rows)
        data = _models(connection, kept)
    return Page[Model].of(data, [item.id for item in data], has_more)


@router.get("/{name}")
def get_model(caller: ModelReader, name: ModelName, resources: Held) -> Model:
    with resources.database.read() as connection:
        return _models(connection, [find_model(connection, caller.tenant_id, name)])[0]


@router.get("/{name}/versions")
def get_versions(caller: ModelReader, name: ModelName, query: Paged, resources: Held) -> Page[ModelVersion]:
    """By version number; `after` and `before` are version numbers."""
    with resources.database.read() as connection:
        model = find_model(connection, caller.tenant_id, name)
        rows = connection.execute(models.versions(model.id, query.rows, query.descending, _version_cursor(query))).all()
        aliases = aliases_by_model(connection, [model.id])[model.id]
    kept, has_more = query.cut(rows)
    data = [version_of(name, row, _names_of(aliases, row.version)) for row in kept]
    return Page[ModelVersion].of(data, [str(item.version) for item in data], has_more)


@router.get("/{name}/versions/{version}")
def get_version(caller: ModelReader, name: ModelName, version: VersionNumber, resources: Held) -> ModelVersion:
    with resources.database.read() as connection:
        model = find_model(connection, caller.tenant_id, name)
        row = find_version(connection, model, version)
        aliases = aliases_by_model(connection, [model.id])[model.id]
    return version_of(name, row, _names_of(aliases, version))


@router.get("/{name}/population")
def get_population(
    caller: ModelReader,
    name: ModelName,
    resources: Held,
    version: WantedVersion = None,
    alias: WantedAlias = None,
    channels: Annotated[bool, Query(description="With the values of every channel, for a page of layers")] = False,
    layer: Annotated[str | None, Query(max_length=200, description="The channels of this layer only")] = None,
    after: Annotated[str | None, Query(max_length=200, description="Channels of the layers behind this one")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Layers a page")] = 20,
) -> Population:
    """E[x] and Var[x] of each layer, with estimator, batch size and number of samples."""
    with resources.database.read() as connection:
        found = resolve(connection, caller.tenant_id, name, version, alias)
        card = connection.execute(models.card(found.model_id, found.version)).scalar_one()
    population = card.get("population")
    told = Population(
        model=name, version=found.version, statistics_sha256=found.statistics_sha256, population=population
    )
    if not (channels or layer or after):
        return told
    if population is None:
        return told.model_copy(update={"layers": []})
    file = found.artifacts["safetensors"]
    content = resources.artifacts.get(file["name"], file["sha256"])
    layers, has_more = page_of_layers(content, _in_order(population["layers"]), layer, after, limit)
    last = layers[-1].layer if layers else None
    return told.model_copy(update={"layers": layers, "last_layer": last, "has_more": has_more})


@router.get("/{name}/drift")
async def get_drift(
    caller: ModelReader, name: ModelName, resources: Held, version: WantedVersion = None, alias: WantedAlias = None
) -> Drift:
    """The inputs that this process has seen since the version was loaded, and what the layers made of some of them,
    against those of its training."""
    return drift_report(await resources.resolver.find(Wanted(caller.tenant_id, name, version, alias)))


@router.get("/{name}/download", response_class=Response)
def download(
    caller: ModelReader,
    name: ModelName,
    resources: Held,
    format: Annotated[Literal["onnx", "safetensors", "probe", "card"], Query()] = "onnx",
    version: WantedVersion = None,
    alias: WantedAlias = None,
) -> Response:
    """A file of a version, checked against its digest; the digest is the `ETag`."""
    with resources.database.read() as connection:
        found = resolve(connection, caller.tenant_id, name, version, alias)
    artifact = found.artifacts.get(format)
    if artifact is None:
        known = ", ".join(sorted(found.artifacts))
        raise NotFound(f"version {found.version} of model {name} has no {format} file: it has {known}")
    content = resources.artifacts.get(artifact["name"], artifact["sha256"])
    headers = {
        "ETag": f'"{artifact["sha256"]}"',
        "Content-Disposition": f'attachment; filename="{name}-{found.version}.{SUFFIXES[format]}"',
    }
    return Response(content, media_type=MEDIA_TYPES[format], headers=headers)


def _in_order(layers: dict[str, Any]) -> list[str]:
    """Names in order of computation, which a JSON object in a database does not keep."""
    return sorted(layers, key=lambda name: int(layers[name].get("position", 0)))


def _models(connection: Connection, rows: list[Any]) -> list[Model]:
    ids = [row.id for row in rows]
    newest = {row.model_id: row.version for row in connection.execute(models.last_versions(ids))}
    aliases = aliases_by_model(connection, ids)
    return [model_of(row, newest.get(row.id, 0), aliases[row.id]) for row in rows]


def _names_of(aliases: dict[str, int], version: int) -> list[str]:
    return [name for name, number in aliases.items() if number == version]


def _version_cursor(query: PageQuery) -> int | None:
    if query.cursor is None:
        return None
    if not query.cursor.isdigit() or int(query.cursor) > LARGEST_VERSION:
        name = "before" if query.backwards else "after"
        raise bad_query(name, "unknown_cursor", f"{query.cursor} is no version number")
    return int(query.cursor)
