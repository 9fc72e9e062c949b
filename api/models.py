"""Reading models: one of a tenant's, one version of it by number or alias."""

from typing import Any

from sqlalchemy import Connection

from core.errors import NotFound
from core.queries import aliases, models
from core.queries.models import DEFAULT_ALIAS


def find_model(connection: Connection, tenant_id: str, name: str) -> Any:
    """The row. Raises NotFound, for another tenant's model too."""
    row = connection.execute(models.by_name(tenant_id, name)).one_or_none()
    if row is None:
        raise NotFound(f"there is no model {name}")
    return row


def find_version(connection: Connection, model: Any, number: int) -> Any:
    row = connection.execute(models.version(model.id, number)).one_or_none()
    if row is None:
        raise NotFound(f"model {model.name} has no version {number}")
    return row


def resolve(connection: Connection, tenant_id: str, name: str, version: int | None, alias: str | None) -> Any:
    """(model_id, version, artifacts, statistics_sha256) of one version, see `queries.models.resolve`.

    Raises NotFound that says what is missing.
    """
    row = connection.execute(models.resolve(tenant_id, name, version, alias)).one_or_none()
    if row is not None:
        return row
    find_model(connection, tenant_id, name)
    if version is not None:
        raise NotFound(f"model {name} has no version {version}")
    raise NotFound(f"model {name} has no alias {alias or DEFAULT_ALIAS}")


def aliases_by_model(connection: Connection, model_ids: list[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {model_id: {} for model_id in model_ids}
    for row in connection.execute(aliases.all_of(model_ids)):
        found[row.model_id][row.name] = row.version
    return found
