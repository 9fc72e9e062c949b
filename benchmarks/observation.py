"""What does it cost a training to be observed?

    python -m benchmarks.observation [--workload mlp convnet resnet] [--rounds 7] [--quick]

The trainer's loop as it is, observed at the default interval, and observed at every step take turns in one process, one
thread, their metrics going through the real ledger into SQLite. From the last one comes the time of an observation, and
with it the cost at the default interval, which the difference of the first two is too small to show on a machine with
other work. Of processor time.
"""

import argparse
import platform
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch

from benchmarks._plain import Clock, Contender
from benchmarks._service import ledger_sink, trainer
from benchmarks._workloads import WORKLOADS, Workload, load_data
from core.spec.observation import ObserveSpec
from worker.trainer.data import Data
from worker.trainer.memory import keep_freed_memory

CPU = torch.device("cpu")
ALLOWED = 0.03
ROUND_SECONDS = 0.5
VARIANTS: dict[str, dict[str, object]] = {
    "not observed": {},
    "observed, default interval": {"observe": {}},
    "observed at every step": {"observe": {"every": 1}},
}


def contenders(workload: Workload, data: Data, folder: Path, stack: ExitStack) -> dict[str, Contender]:
    found = {}
    for number, (name, changes) in enumerate(VARIANTS.items()):
        spec, home = workload.spec(**changes), folder / str(number)
        home.mkdir()
        found[name] = trainer(spec, data, CPU, home, stack.enter_context(ledger_sink(spec, CPU, home)))
    return found


def measure(found: dict[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Steps a second of each; the first round warms up. Whole intervals, but for the slow one."""
    interval = ObserveSpec().every
    off, on, always = found
    steps = max(interval, int(found[off](6) * ROUND_SECONDS) // interval * interval)
    counts = {off: steps, on: steps, always: max(4, steps // 10)}
    rates: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 1):
        for name, run in found.items():
            rate = run(counts[name])
            if number:
                rates[name].append(rate)
    return rates


def show(rates: dict[str, list[float]]) -> bool:
    off, on, always = (statistics.median(values) for values in rates.values())
    for name, values in rates.items():
        print(f"  {name:28s} {statistics.median(values):9.1f} steps/s  ({min(values):.1f}–{max(values):.1f})")
    every = ObserveSpec().every
    seconds = 1.0 / always - 1.0 / off
    cost = seconds / every * off
    print(f"  an observation takes {1e3 * seconds:.2f} ms, as long as {seconds * off:.1f} steps")
    print(f"  cost at the default interval of {every} steps: {cost:.1%} (allowed: {ALLOWED:.0%})")
    print(f"  difference of the rates themselves: {off / on - 1.0:+.1%}\n")
    return cost <= ALLOWED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="three rounds of the MLP and the convnet")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    given = parser.parse_args()
    Clock.of_process = True
    torch.set_num_threads(1)
    keep_freed_memory()
    data, kind = load_data(given.data, CPU)
    print(f"{kind}, processor time, 1 thread, torch {torch.__version__}, Python {platform.python_version()}")
    within = True
    for name in ("mlp", "convnet") if given.quick else given.workload:
        print(f"\n{name}, batch {WORKLOADS[name].batch_size}")
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            found = contenders(WORKLOADS[name], data, Path(folder), stack)
            within &= show(measure(found, 3 if given.quick else given.rounds))
    if not within:
        raise SystemExit("an observation costs more than is allowed")


if __name__ == "__main__":
    main()
