"""Commands of the server side. Each replaces this process by a fresh interpreter: the command line's
own libraries cost a service memory, and a forkserver must find an empty `__main__`."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cli.processes import ADMIN_KEY, API, API_GROUP, CHECK, MIGRATE, UP, WORKER, Overrides, command
from core.errors import SettingsInvalid
from core.settings import load_settings

Home = Annotated[
    Path | None,
    typer.Option(help="Folder of database, artifacts, data and key. [env: EVENKEEL_HOME]", show_default=False),
]
Host = Annotated[
    str | None,
    typer.Option(help="Address to listen on; 127.0.0.1 unless given. [env: EVENKEEL_HOST]", show_default=False),
]
Port = Annotated[
    int | None, typer.Option(help="Port; 0 for a free one, 8321 unless given. [env: EVENKEEL_PORT]", show_default=False)
]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes that share the port; 1 unless given. [env: EVENKEEL_API_WORKERS]", show_default=False),
]

SERVER_PARTS = ("uvicorn", "sqlalchemy", "alembic", "setproctitle")
WORKER_PARTS = ("torch", "onnx", "sklearn", "sqlalchemy", "setproctitle")


def up(home: Home = None, host: Host = None, port: Port = None) -> None:
    """Run the whole service on this machine: API, worker, database, all in one folder."""
    _become(UP, SERVER_PARTS + WORKER_PARTS, home, host=host, port=port)


def api(home: Home = None, host: Host = None, port: Port = None, workers: Workers = None) -> None:
    """Run the HTTP API alone."""
    _become(API, SERVER_PARTS, home, host=host, port=port, api_workers=workers)


def serve(home: Home = None, host: Host = None, port: Port = None, workers: Workers = None) -> None:
    """Run models and predictions alone: the API without jobs, over the same database and keys."""
    _become(API, SERVER_PARTS, home, host=host, port=port, api_workers=workers, role="inference")


def worker(
    home: Home = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell whether the worker of this home consumes work: exit code 0 or 1.")
    ] = False,
) -> None:
    """Run a worker alone: it trains what is queued in the database."""
    if check:
        _become(CHECK, ("pydantic",), home)
    _become(WORKER, WORKER_PARTS, home)


def migrate(home: Home = None) -> None:
    """Bring the database to the newest schema, and see to the first admin key."""
    _become(MIGRATE, SERVER_PARTS, home)


def admin_key(home: Home = None) -> None:
    """Write one more admin key straight into the database: the way back in when every key is lost."""
    _become(ADMIN_KEY, SERVER_PARTS, home)


def require(parts: tuple[str, ...]) -> None:
    """Raises SettingsInvalid, naming the remedy, when the installation lacks one of the packages."""
    missing = [name for name in parts if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsInvalid(
            f"this installation has no {', '.join(sorted(set(missing)))}: pip install 'evenkeel[server,worker]'"
        )


def _become(code: str, parts: tuple[str, ...], home: Path | None, **given: str | int | None) -> NoReturn:
    require(parts)
    overrides: Overrides = {"home": str(home.absolute()) if home else None, **given}
    settings = load_settings(**overrides)  # what can not be used is named here, in one line
    if code == API and settings.api_workers > 1:
        code = API_GROUP
    sys.stdout.flush()
    os.execv(sys.executable, command(code, overrides))
