"""Statements that ask whether the database is there, and which migration it has."""

from typing import Any

from sqlalchemy import Select, column, literal, select, table

_alembic_version = table("alembic_version", column("version_num"))


def alive() -> Select[Any]:
    return select(literal(1))


def migration() -> Select[Any]:
    """The applied migration. Fails where no migration was ever applied, as the table is missing."""
    return select(_alembic_version.c.version_num)
