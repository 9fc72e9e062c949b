"""Alembic's entry: one connection, one transaction, under a lock so that two migrators do not meet."""

from alembic import context
from sqlalchemy import create_engine, event

from core.settings import load_settings
from core.tables import metadata

POSTGRES_LOCK = 0x65766B6C  # any fixed number; all migrators of one database must agree on it


def run() -> None:
    url = context.config.get_main_option("sqlalchemy.url") or load_settings().resolved_database_url
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        _begin_exclusive(engine)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({POSTGRES_LOCK})")
        context.configure(
            connection=connection,
            target_metadata=metadata,
            render_as_batch=True,
            compare_server_default=False,
        )
        context.run_migrations()
    engine.dispose()


def _begin_exclusive(engine) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """The driver would otherwise commit before each DDL statement, and a killed migration would stay half done."""

    @event.listens_for(engine, "connect")
    def set_up(connection, _record):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA busy_timeout=30000")

    @event.listens_for(engine, "begin")
    def start(connection):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        connection.exec_driver_sql("BEGIN EXCLUSIVE")


run()
