"""A child of `evenkeel up` on its own."""

import subprocess
import sys
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

from cli.children import Child


def test_a_child_that_ends_while_it_is_killed_is_no_error() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""], process_group=0)
    gone.wait()
    child = Child("api", [], (), SimpleQueue())
    unnoticed: Any = SimpleNamespace(pid=gone.pid, poll=lambda: None)  # its end is still being reported
    child.process = unnoticed

    child.kill()
