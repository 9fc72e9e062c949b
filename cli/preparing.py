"""Makes a home ready: schema, first tenant, admin key. A process of its own, so that the memory of
Alembic and SQLAlchemy goes back before the service starts."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from cli import processes
from core.credentials import ALL_SCOPES, MintedKey, mint, restore
from core.db import Database
from core.errors import Conflict, EvenkeelError
from core.identifiers import new_id
from core.queries import keys
from core.settings import Settings
from core.tables import SCHEMA_HEAD
from migrations.apply import upgrade

TENANT = "default"


def prepare(settings: Settings) -> MintedKey | None:
    """Migrates and sees to the admin key; the key when it was made just now."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    try:
        return _see_to_admin_key(database, settings.resolved_admin_key_file)
    finally:
        database.close()


def issue_admin_key(settings: Settings) -> MintedKey:
    """One more key with every scope, straight in the database: the way back in when all keys are lost."""
    database = Database(settings.resolved_database_url)
    key = mint()
    try:
        tenant_id = _tenant_id(database)
        with database.write() as connection:
            _store(connection, tenant_id, key)
    finally:
        database.close()
    return key


def _see_to_admin_key(database: Database, file: Path) -> MintedKey | None:
    """The file is written before the row: a crash in between is healed by storing the file's key at the next start.

    Whoever does the same at the same moment, here or on another machine, waits, and then finds it done.
    """
    tenant_id = _tenant_id(database)
    with database.write() as connection:
        connection.execute(keys.hold_tenant(tenant_id))
        kept = _kept_in(file)
        if kept is not None:
            if connection.execute(keys.one(tenant_id, kept.id)).one_or_none() is None:
                _store(connection, tenant_id, kept)
            return None
        if connection.execute(keys.of_tenant(tenant_id)).first() is not None:
            return None
        fresh = mint()
        write_secret(file, fresh.text)
        _store(connection, tenant_id, fresh)
    return fresh


def _kept_in(file: Path) -> MintedKey | None:
    """The file's key; None when there is no file. Raises Conflict when it holds something else."""
    if not file.exists():
        return None
    kept = restore(file.read_text().strip())
    if kept is None:
        raise Conflict(f"{file} holds no evenkeel key: remove it, and see `evenkeel keys admin`")
    return kept


def write_secret(file: Path, text: str) -> None:
    """Mode 600 from its first byte on. Raises FileExistsError rather than write over a key."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(f"{text}\n")
        stream.flush()
        os.fsync(descriptor)


def _tenant_id(database: Database) -> str:
    found = _tenant(database)
    if found is None:
        with suppress(IntegrityError), database.write() as connection:  # another one was as quick
            connection.execute(keys.create_tenant(new_id("ten"), TENANT))
        found = _tenant(database)
    if found is None:
        raise Conflict(f"the tenant {TENANT} can not be made: look into the table `tenants`")
    return found


def _tenant(database: Database) -> str | None:
    with database.read() as connection:
        row = connection.execute(keys.tenant_by_name(TENANT)).one_or_none()
    return None if row is None else str(row.id)


def _store(connection: Connection, tenant_id: str, key: MintedKey) -> None:
    columns: dict[str, Any] = {"name": "admin", "scopes": list(ALL_SCOPES), "secret_sha256": key.secret_sha256}
    connection.execute(keys.create(id=key.id, tenant_id=tenant_id, **columns))


def main() -> int:
    """Exit code 0 when the home is ready; prints the admin key when it is new."""
    return _told(_prepare_and_show)


def migrate() -> int:
    """As `main`, for a person: says what was done."""
    return _told(_migrate_and_show)


def new_admin_key() -> int:
    return _told(_issue_and_show)


def _prepare_and_show(settings: Settings) -> None:
    fresh = prepare(settings)
    if fresh is not None:
        print(f"admin key (shown once, kept in {settings.resolved_admin_key_file}): {fresh.text}", flush=True)


def _migrate_and_show(settings: Settings) -> None:
    _prepare_and_show(settings)
    print(f"the database is at revision {SCHEMA_HEAD}")


def _issue_and_show(settings: Settings) -> None:
    key = issue_admin_key(settings)
    try:
        write_secret(settings.resolved_admin_key_file, key.text)
        kept = f", kept in {settings.resolved_admin_key_file}"
    except FileExistsError:
        kept = ""
    print(f"admin key (shown once{kept}): {key.text}", flush=True)


def _told(action: Callable[[Settings], None]) -> int:
    """Exit code of an action; an error is one line, never a traceback."""
    try:
        action(processes.settings())
    except (EvenkeelError, OSError) as error:
        print(f"evenkeel: {error}", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        reason = str(error).strip().splitlines()[0]
        print(
            f"evenkeel: the database can not be used ({reason}): see EVENKEEL_DATABASE_URL, for instance "
            "postgresql+psycopg://user:password@host/name, or leave it out for SQLite in the home",
            file=sys.stderr,
        )
        return 1
    return 0
