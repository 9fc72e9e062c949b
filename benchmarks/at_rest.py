"""What does the service cost when nobody asks for anything?

    python -m benchmarks.at_rest [--seconds 30] [--models 5] [--quick]

Starts `evenkeel up` on a fresh home, trains a few small models, and measures: the CPU that all its
processes together use while idle, and the API's memory at rest, before and after it has loaded the models.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from cli.hosting import service
from evenkeel import Client

MIB = 1024 * 1024
SPEC: dict[str, Any] = {
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [100, 100, 100]},
    "training": {"steps": 100},
}


def processes(home: Path) -> list[psutil.Process]:
    """The parent `up` of this home and all below it."""
    children = psutil.Process().children(recursive=True)
    return [process for process in children if process.is_running()]


def cpu_seconds(found: list[psutil.Process]) -> float:
    return sum(process.cpu_times().user + process.cpu_times().system for process in found)


def resident(found: list[psutil.Process], title: str) -> float:
    [process] = [process for process in found if " ".join(process.cmdline()).strip() == title]
    return process.memory_info().rss / MIB


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=30.0)
    arguments.add_argument("--models", type=int, default=5)
    arguments.add_argument("--quick", action="store_true", help="one model and two seconds: does it run at all?")
    given = arguments.parse_args()
    if given.quick:
        given.seconds, given.models = 2.0, 1
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        with service(home), Client(home=home) as client:
            for number in range(given.models):
                client.wait(client.submit(SPEC | {"name": f"model-{number}"}), 120)
            found = processes(home)
            before = resident(found, "evenkeel: api")
            for number in range(given.models):
                client.predict(f"model-{number}", [[0.0] * 64])
            after = resident(found, "evenkeel: api")
            for process in found:
                print(f"{' '.join(process.cmdline()).strip()[:40]:40} {process.memory_info().rss / MIB:6.0f} MB")
            began, used = time.monotonic(), cpu_seconds(found)
            time.sleep(given.seconds)
            share = (cpu_seconds(found) - used) / (time.monotonic() - began)
    print(f"idle CPU of all processes: {share:.2%} of a core over {given.seconds:.0f} s")
    print(f"API memory at rest: {before:.0f} MB; {(after - before) / given.models:.1f} MB more for each loaded MLP")


if __name__ == "__main__":
    main()
