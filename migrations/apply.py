"""Brings a database to a revision; the same on an installed package and in a checkout."""

from pathlib import Path

from alembic import command
from alembic.config import Config


def config_for(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Applies what is missing, in one transaction; nothing happens when nothing is missing."""
    command.upgrade(config_for(database_url), revision)


def downgrade(database_url: str, revision: str) -> None:
    command.downgrade(config_for(database_url), revision)
