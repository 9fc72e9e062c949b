"""How many small members a minute does a comparison train, beside loops that only train?

    python -m benchmarks.members [--seeds 20] [--steps 2000] [--data FOLDER] [--quick]

The paper's MNIST network with and without batch norm, 20 seeds each: 40 members of 2,000 steps in batches of 60, the
test set evaluated every 500. Three ways, each from the first to the last member:

  service        one comparison on two slots, one thread each, from its POST to its report; the service runs already
  one process    plain loops (benchmarks/_plain.py), one after the other, data loaded once
  fresh          the same, each in a fresh Python process: imports of torch and the reading of the files with it

Also the processor time that a member took, of all processes together, for a machine that has other work; and where
the members' time went, from the phases that each of them records.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from benchmarks import _alone
from benchmarks._workloads import WORKLOADS
from cli.hosting import service
from evenkeel import Client, Comparison

SLOTS = 2
EVALUATIONS = 4
POLL_SECONDS = 0.1
ROOT = Path(__file__).parents[1]
Members = list[tuple[int, bool]]
"""(seed, batch norm)."""


class Took(NamedTuple):
    """Seconds for all members: elapsed, and of processors."""

    elapsed: float
    processor: float


def base(steps: int) -> dict[str, Any]:
    training = {"steps": steps, "evaluate_every": steps // EVALUATIONS, "checkpoint_every": steps}
    return (
        WORKLOADS["mlp"].spec(training=training).model_dump(mode="json", exclude={"publish", "priority", "batch_norm"})
    )


def compared(client: Client, seeds: int, steps: int) -> Comparison:
    """The comparison once it has ended; its report was read, too."""
    made = client.comparisons.submit({"base": base(steps), "vary": {"batch_norm": [True, False]}, "seeds": seeds})
    while not made.terminal:
        time.sleep(POLL_SECONDS)
        made = client.comparisons.get(made)
    report = made.report()
    if not report["complete"]:
        raise SystemExit(f"not every member ended well: {report['figures']['missing']}")
    return made


def phases(client: Client, made: Comparison) -> Iterator[tuple[str, dict[str, float]]]:
    """For each variant the mean seconds of its members' phases, and of all between claim and end."""
    results: dict[str, list[dict[str, float]]] = {}
    for job in client.comparisons.members(made):
        seconds = dict((job.result or {})["phases_seconds"])
        whole = (job.finished_at - job.started_at).total_seconds() if job.finished_at and job.started_at else 0.0
        results.setdefault(job.raw["comparison"]["variant"], []).append(seconds | {"from claim to end": whole})
    for name, rows in results.items():
        yield name, {phase: statistics.mean(row[phase] for row in rows) for phase in rows[0]}


def in_the_service(data: Path, seeds: int, steps: int) -> Took:
    """Seconds for all members; prints where they went."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        (home / "data").mkdir()
        (home / "data" / "mnist").symlink_to(data.absolute() / "mnist")
        with service(home), Client(home=home) as client:
            compared(client, 1, EVALUATIONS)  # the files are decoded, once for the node
            took = _took(lambda: compared(client, seeds, steps))
            (made, _) = client.comparisons.list(2)
            busy = 0.0
            for name, means in phases(client, made):
                print(
                    f"  {name}: " + ", ".join(f"{phase} {1000 * value:.0f}" for phase, value in means.items()) + " ms"
                )
                busy += seeds * means["from claim to end"]
            print(f"  slots had a member {busy / (SLOTS * took.elapsed):.0%} of the time")
            return took


def in_one_process(data: Path, members: Members, steps: int) -> Took:
    def run() -> None:
        splits = _alone.load(data / "mnist")
        for seed, batch_norm in members:
            _alone.train(splits, seed, batch_norm, steps, steps // EVALUATIONS)

    return _took(run)


def in_fresh_processes(data: Path, members: Members, steps: int) -> Took:
    folder, every = str(data.absolute() / "mnist"), str(steps // EVALUATIONS)

    def run() -> None:
        for seed, batch_norm in members:
            command = [sys.executable, "-m", "benchmarks._alone", folder, str(seed), str(batch_norm), str(steps), every]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    return _took(run)


def _took(run: Callable[[], object]) -> Took:
    began, used = time.perf_counter(), _processor_seconds()
    run()
    return Took(time.perf_counter() - began, _processor_seconds() - used)


def _processor_seconds() -> float:
    """Of this process and all below it, those that have ended included."""
    here = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in (here, *here.children(recursive=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="4 members of 200 steps: does it run at all?")
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.steps = 2, 200
    if not (given.data / "mnist").is_dir():
        print(f"not measured: no MNIST files in {given.data.name}/mnist; give --data")
        return
    torch.set_num_threads(1)
    members = [(seed, batch_norm) for seed in range(given.seeds) for batch_norm in (True, False)]
    print(f"{len(members)} members of {given.steps} steps, torch {torch.__version__}")
    found = {"service": in_the_service(given.data, given.seeds, given.steps)}
    found["one process"] = in_one_process(given.data, members, given.steps)
    found["fresh"] = in_fresh_processes(given.data, members, given.steps)
    for name, (elapsed, processor) in found.items():
        rate, each = 60.0 * len(members) / elapsed, processor / len(members)
        ratio = elapsed / found["service"].elapsed
        print(f"{name:12s} {elapsed:6.1f} s, {rate:6.1f} members a minute, {each:.2f} s of processor each; ", end="")
        print(f"the service is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
