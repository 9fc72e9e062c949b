"""Statements on aliases: where they stand, and where they stood."""

from typing import Any, Literal

from sqlalchemy import Delete, Insert, Select, Update, delete, insert, literal, select, update

from core.clock import now_us
from core.tables import alias_moves, aliases

Reason = Literal["moved", "published", "rolled_back", "deleted"]
SPLIT = ("canary_version", "canary_weight", "shadow_version")


def all_of(model_ids: list[str]) -> Select[Any]:
    return select(aliases).where(aliases.c.model_id.in_(model_ids)).order_by(aliases.c.name)


def one(model_id: str, name: str) -> Select[Any]:
    return select(aliases).where(aliases.c.model_id == model_id, aliases.c.name == name)


def create(model_id: str, name: str, version: int, **split: Any) -> Insert:
    return insert(aliases).values(model_id=model_id, name=name, version=version, updated_at=now_us(), **split)


def move(model_id: str, name: str, version: int, **split: Any) -> Update:
    """Without `split`, canary and shadow end: they were meant for the version that stood there."""
    values = dict.fromkeys(SPLIT) | split
    return (
        update(aliases)
        .where(aliases.c.model_id == model_id, aliases.c.name == name)
        .values(version=version, updated_at=now_us(), **values)
    )


def remove(model_id: str, name: str) -> Delete:
    return delete(aliases).where(aliases.c.model_id == model_id, aliases.c.name == name)


def record(model_id: str, name: str, reason: Reason) -> Insert:
    """How the alias stands now, as the newest entry of its history; in the transaction that changed it."""
    columns = ("model_id", "name", "version", *SPLIT)
    now = select(*(aliases.c[column] for column in columns), literal(reason), now_us()).where(
        aliases.c.model_id == model_id, aliases.c.name == name
    )
    return insert(alias_moves).from_select([*columns, "reason", "created_at"], now)


def record_removal(model_id: str, name: str) -> Insert:
    return insert(alias_moves).values(model_id=model_id, name=name, reason="deleted", created_at=now_us())


def history(model_id: str, name: str, limit: int) -> Select[Any]:
    """Newest first."""
    return (
        select(alias_moves)
        .where(alias_moves.c.model_id == model_id, alias_moves.c.name == name)
        .order_by(alias_moves.c.id.desc())
        .limit(limit)
    )
