"""What fresh interpreters run. Given as code, not as a script or a module, so that their `__main__`
is empty: a forkserver runs the `__main__` of the process that started it again in each of its children."""

import json
import sys
from collections.abc import Callable
from typing import NoReturn

from core.errors import EvenkeelError
from core.settings import Settings, load_settings

UP = "import sys; from cli.up import main; sys.exit(main())"
API = "from api.server import serve; from cli.processes import finish; finish(serve)"
SHARING_API = "from api.server import serve; from cli.processes import finish_sharing; finish_sharing(serve)"
API_GROUP = "import sys; from cli.workers import main; sys.exit(main())"
WORKER = "from worker.local import run; from cli.processes import finish; finish(run)"
CHECK = "from worker.vitals import check; from cli.processes import finish; finish(check)"
PREPARE = "import sys; from cli.preparing import main; sys.exit(main())"
MIGRATE = "import sys; from cli.preparing import migrate; sys.exit(migrate())"
ADMIN_KEY = "import sys; from cli.preparing import new_admin_key; sys.exit(new_admin_key())"
DEMO_ROWS = "from cli.demo_rows import main; main()"

Overrides = dict[str, str | int | None]
"""Settings by name that win over the environment; None: not given."""


def command(code: str, overrides: Overrides, *arguments: str) -> list[str]:
    """A fresh interpreter that finds modules only where packages are installed, not in the working directory."""
    return [sys.executable, "-P", "-c", code, json.dumps(overrides), *arguments]


def settings() -> Settings:
    """In a process that was started by `command`: its settings."""
    return load_settings(**json.loads(sys.argv[1]))


def overrides() -> Overrides:
    """In such a process: the settings that it was given itself."""
    found: Overrides = json.loads(sys.argv[1])
    return found


def arguments() -> list[str]:
    """In such a process: what it was given besides."""
    return sys.argv[2:]


def parent() -> int | None:
    """In such a process: the descriptor whose other end closes with its parent, when it was given one."""
    return int(sys.argv[2]) if sys.argv[2:] else None


def finish_sharing(run: Callable[[Settings, int | None, int | None], None]) -> NoReturn:
    """As `finish`, for a process that was given a listening socket of its parent's."""
    listening = int(sys.argv[3])
    finish(lambda settings, parent: run(settings, parent, listening))


def finish(run: Callable[[Settings, int | None], int | None]) -> NoReturn:
    """Runs a server process to its end; an error of ours, or of a file, is one line, never a traceback."""
    try:
        sys.exit(run(settings(), parent()))
    except (EvenkeelError, OSError) as error:
        print(f"evenkeel: {error}", file=sys.stderr)
        sys.exit(1)
