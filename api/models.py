"""Reading models: one of a tenant's, one version of it by number or alias."""

from typing import Any

from sqlalchemy import Connection

from api.identified import missing
from api.pagination import bad_query
from core.errors import NotFound
from core.queries import aliases, models
from core.queries.models import DEFAULT_ALIAS


def find_model(connection: Connection, tenant_id: str, name: str) -> Any:
    """The row. Raises NotFound, for another tenant's model too."""
    row = connection.execute(models.by_name(tenant_id, name)).one_or_none()
    if row is None:
        raise missing("model", name)
    return row


def find_version(connection: Connection, model: Any, number: int) -> Any:
    row = connection.execute(models.version(model.id, number)).one_or_none()
    if row is None:
        raise _no_version(connection, model, number)
    return row


def resolve(connection: Connection, tenant_id: str, name: str, version: int | None, alias: str | None) -> Any:
    """(model_id, version, artifacts, statistics_sha256) of one version, see `queries.models.resolve`.

    Raises NotFound that says what is missing, InputInvalid when both a version and an alias are named.
    """
    if version is not None and alias is not None:
        message = f"version {version} and alias {alias!r} both name a version: give one of them"
        raise bad_query("alias", "exclusive", message)
    row = connection.execute(models.resolve(tenant_id, name, version, alias)).one_or_none()
    if row is not None:
        return row
    model = find_model(connection, tenant_id, name)
    if version is not None:
        raise _no_version(connection, model, version)
    raise no_alias(connection, model, alias or DEFAULT_ALIAS)


def no_alias(connection: Connection, model: Any, alias: str) -> NotFound:
    known = ", ".join(aliases_by_model(connection, [model.id])[model.id])
    return NotFound(f"model {model.name} has no alias {alias}: {f'it has {known}' if known else 'it has none'}")


def _no_version(connection: Connection, model: Any, number: int) -> NotFound:
    newest = connection.execute(models.versions(model.id, 1, descending=True)).first()
    known = f"its newest is {newest.version}" if newest else "none is published yet"
    return NotFound(f"model {model.name} has no version {number}: {known}")


def aliases_by_model(connection: Connection, model_ids: list[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {model_id: {} for model_id in model_ids}
    for row in connection.execute(aliases.all_of(model_ids)):
        found[row.model_id][row.name] = row.version
    return found
