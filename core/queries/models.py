"""Statements on models and their versions."""

from typing import Any

from sqlalchemy import Insert, Select, and_, func, insert, select

from core.clock import now_us
from core.tables import aliases, model_versions, models

DEFAULT_ALIAS = "latest"


def create(model_id: str, tenant_id: str, name: str) -> Insert:
    return insert(models).values(id=model_id, tenant_id=tenant_id, name=name, created_at=now_us())


def by_name(tenant_id: str, name: str) -> Select[Any]:
    return select(models).where(models.c.tenant_id == tenant_id, models.c.name == name)


def one(tenant_id: str, model_id: str) -> Select[Any]:
    return select(models).where(models.c.tenant_id == tenant_id, models.c.id == model_id)


def last_versions(model_ids: list[str]) -> Select[Any]:
    """(model_id, version) of the newest version of each of these models."""
    return (
        select(model_versions.c.model_id, func.max(model_versions.c.version).label("version"))
        .where(model_versions.c.model_id.in_(model_ids))
        .group_by(model_versions.c.model_id)
    )


def resolve(tenant_id: str, name: str, number: int | None, alias_name: str | None) -> Select[Any]:
    """One version of a model, without its card: by number, else by alias; with neither, `latest` or else the newest.

    One indexed read; predictions remember its answer for a moment.
    """
    wanted = and_(aliases.c.model_id == models.c.id, aliases.c.name == (alias_name or DEFAULT_ALIAS))
    statement = (
        select(
            model_versions.c.model_id,
            model_versions.c.version,
            model_versions.c.artifacts,
            model_versions.c.weights_sha256,
            model_versions.c.statistics_sha256,
        )
        .join(models, models.c.id == model_versions.c.model_id)
        .where(models.c.tenant_id == tenant_id, models.c.name == name)
    )
    if number is not None:
        return statement.where(model_versions.c.version == number)
    split = (aliases.c.canary_version, aliases.c.canary_weight, aliases.c.shadow_version)
    statement = statement.add_columns(*split).outerjoin(aliases, wanted)
    if alias_name is not None:
        return statement.where(model_versions.c.version == aliases.c.version)
    newest = select(func.max(model_versions.c.version)).where(model_versions.c.model_id == models.c.id)
    return statement.where(
        model_versions.c.version == func.coalesce(aliases.c.version, newest.correlate(models).scalar_subquery())
    )


def card(model_id: str, number: int) -> Select[Any]:
    return select(model_versions.c.card).where(
        model_versions.c.model_id == model_id, model_versions.c.version == number
    )


def lock(model_id: str) -> Select[Any]:
    """Taken before the next version number is read, so that two jobs never get the same one."""
    return select(models.c.id).where(models.c.id == model_id).with_for_update()


def page(tenant_id: str, limit: int, descending: bool, after: Any = None) -> Select[Any]:
    """Keyset page by id, which sorts by time of creation."""
    statement = select(models).where(models.c.tenant_id == tenant_id)
    if after is not None:
        statement = statement.where(models.c.id < after.id if descending else models.c.id > after.id)
    return statement.order_by(models.c.id.desc() if descending else models.c.id).limit(limit)


def last_version(model_id: str) -> Select[Any]:
    return select(func.coalesce(func.max(model_versions.c.version), 0)).where(model_versions.c.model_id == model_id)


def create_version(**columns: Any) -> Insert:
    return insert(model_versions).values(created_at=now_us(), **columns)


def version(model_id: str, number: int) -> Select[Any]:
    return select(model_versions).where(model_versions.c.model_id == model_id, model_versions.c.version == number)


def versions(model_id: str, limit: int, descending: bool, after: int | None = None) -> Select[Any]:
    number = model_versions.c.version
    statement = select(model_versions).where(model_versions.c.model_id == model_id)
    if after is not None:
        statement = statement.where(number < after if descending else number > after)
    return statement.order_by(number.desc() if descending else number).limit(limit)


def index(tenant_id: str) -> Select[Any]:
    """(id, name, version) of every version of every model of a tenant."""
    return (
        select(models.c.id, models.c.name, model_versions.c.version)
        .join(model_versions, model_versions.c.model_id == models.c.id)
        .where(models.c.tenant_id == tenant_id)
        .order_by(models.c.name, model_versions.c.version)
    )
