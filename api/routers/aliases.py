"""Aliases: where they stand, where they stood, and back. A version is loaded and warm before an alias moves to it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Connection

from api.auth import ModelReader, ModelWriter
from api.bodies import read_json, validated
from api.documentation import json_body
from api.identified import AliasName, ModelName
from api.inference.resolution import Wanted
from api.models import find_model, find_version, no_alias
from api.pagination import Page
from api.query import KNOWN_QUERY
from api.resources import Held, Resources
from api.schemas.models import Alias, AliasMove, AliasRequest, Removed, Shadowing, alias_of, move_of
from core.errors import Conflict, NotFound
from core.queries import aliases, models

router = APIRouter(prefix="/v1/models/{name}/aliases", tags=["models"], dependencies=[KNOWN_QUERY])
HISTORY = 200
EXAMPLES = json_body(
    AliasRequest,
    {
        "go back": {"version": 1},
        "a tenth of the requests to version 2": {"version": 1, "canary": {"version": 2, "weight": 0.1}},
        "copies to version 2": {"version": 1, "shadow": 2},
    },
)
Limit = Annotated[int, Query(ge=1, le=HISTORY)]


@router.get("")
def get_aliases(caller: ModelReader, name: ModelName, resources: Held) -> Page[Alias]:
    with resources.database.read() as connection:
        model = find_model(connection, caller.tenant_id, name)
        data = [alias_of(name, row) for row in connection.execute(aliases.all_of([model.id]))]
    return Page[Alias].of(data, [item.name for item in data])


@router.get("/{alias}")
def get_alias(caller: ModelReader, name: ModelName, alias: AliasName, resources: Held) -> Alias:
    with resources.database.read() as connection:
        return alias_of(name, _held(connection, find_model(connection, caller.tenant_id, name), alias))


@router.put("/{alias}", openapi_extra=EXAMPLES)
def put_alias(
    caller: ModelWriter, name: ModelName, alias: AliasName, body: Annotated[Any, Depends(read_json)], resources: Held
) -> Alias:
    """Moves an alias, or makes it; predictions of this process follow at once, those of others within a second."""
    wanted = validated(AliasRequest, body)
    split = {
        "canary_version": wanted.canary.version if wanted.canary else None,
        "canary_weight": wanted.canary.weight if wanted.canary else None,
        "shadow_version": wanted.shadow,
    }
    versions = (wanted.version, wanted.canary.version if wanted.canary else None, wanted.shadow)
    with resources.database.read() as connection:
        model = find_model(connection, caller.tenant_id, name)
        for version in versions:
            if version is not None:
                find_version(connection, model, version)
    for version in versions:
        if version is not None:
            resources.resolver.preload(Wanted(caller.tenant_id, name, version=version))
    with resources.database.write() as connection:
        connection.execute(models.lock(model.id))
        if connection.execute(aliases.move(model.id, alias, wanted.version, **split)).rowcount == 0:
            connection.execute(aliases.create(model.id, alias, wanted.version, **split))
        connection.execute(aliases.record(model.id, alias, "moved"))
        row = connection.execute(aliases.one(model.id, alias)).one()
    _follow(resources, model.id)
    return alias_of(name, row)


@router.delete("/{alias}")
def delete_alias(caller: ModelWriter, name: ModelName, alias: AliasName, resources: Held) -> Removed:
    with resources.database.write() as connection:
        model = find_model(connection, caller.tenant_id, name)
        _held(connection, model, alias)
        connection.execute(aliases.remove(model.id, alias))
        connection.execute(aliases.record_removal(model.id, alias))
    _follow(resources, model.id)
    return Removed(model=name, name=alias)


@router.get("/{alias}/history")
def get_history(
    caller: ModelReader, name: ModelName, alias: AliasName, resources: Held, limit: Limit = 50
) -> Page[AliasMove]:
    """Newest first. A deleted alias keeps its history."""
    with resources.database.read() as connection:
        model = find_model(connection, caller.tenant_id, name)
        rows = connection.execute(aliases.history(model.id, alias, limit + 1)).all()
    if not rows:
        raise NotFound(f"model {name} has no alias {alias}, and had none")
    data = [move_of(row) for row in rows[:limit]]
    return Page[AliasMove].of(data, [item.id for item in data], len(rows) > limit)


@router.post("/{alias}/rollback")
def roll_back(caller: ModelWriter, name: ModelName, alias: AliasName, resources: Held) -> Alias:
    """To the version that stood there before, canary and shadow gone; the same again undoes it."""
    with resources.database.read() as connection:
        model = find_model(connection, caller.tenant_id, name)
        current = _held(connection, model, alias)
        before = connection.execute(aliases.history(model.id, alias, HISTORY)).all()
    version = next((row.version for row in before if row.version not in (None, current.version)), None)
    if version is None:
        raise Conflict(
            f"alias {alias} of model {name} has stood on version {current.version} only: there is no way back"
        )
    resources.resolver.preload(Wanted(caller.tenant_id, name, version=version))
    with resources.database.write() as connection:
        connection.execute(models.lock(model.id))
        if _held(connection, model, alias).version != current.version:
            raise Conflict(f"alias {alias} of model {name} was moved meanwhile: look where it stands")
        connection.execute(aliases.move(model.id, alias, version))
        connection.execute(aliases.record(model.id, alias, "rolled_back"))
        row = connection.execute(aliases.one(model.id, alias)).one()
    _follow(resources, model.id)
    return alias_of(name, row)


@router.get("/{alias}/shadow")
def get_shadow(caller: ModelReader, name: ModelName, alias: AliasName, resources: Held) -> Shadowing:
    """How the answers of the shadow differ from those that were given, in this process."""
    with resources.database.read() as connection:
        row = _held(connection, find_model(connection, caller.tenant_id, name), alias)
    found = resources.answering.shadows.of((row.model_id, row.version), (row.model_id, row.shadow_version))
    return Shadowing(model=name, alias=alias, version=row.version, shadow=row.shadow_version, **found)


def _held(connection: Connection, model: Any, alias: str) -> Any:
    row = connection.execute(aliases.one(model.id, alias)).one_or_none()
    if row is None:
        raise no_alias(connection, model, alias)
    return row


def _follow(resources: Resources, model_id: str) -> None:
    resources.resolver.moved(model_id)
    resources.grants.withdraw()
