"""How fast is the service's trainer, and how fast could it be?

    python -m benchmarks.training [--workload mlp convnet resnet] [--rounds 7] [--compile] [--processor-time]
    python -m benchmarks.training --device cuda --precision bf16 [--depth 50] [--size 224] [--batch 256 1024]

Contenders take turns in one process, one thread, so that a busy machine slows all of them. All compute loss
and accuracy of every step. On a CPU, on the MNIST MLP of the BN paper (batch 60), a convnet and a residual
network of 8 layers (batch 64):

  trainer, SQL        the trainer's loop, every step's metrics through the real ledger into SQLite
  trainer, list       the same with a list for a sink
  by autograd         the same, without the passes written by hand (where the trainer has them)
  no batch norm       trainer, list, the same network without
  plain …             a careful loop on tensors in memory: channels-last or not, fused or foreach SGD
  DataLoader          the best of these with torch's DataLoader over tensors in memory
  compiled            torch.compile, of the plain loop and of the trainer (--compile); the compilation is left out
  Lightning, Ignite   where they are installed
  products            matrix products and convolutions alone: the limit

On a GPU: the trainer and a plain loop on a ResNet, and which share of the chip's measured peak each reaches.
"""

import argparse
import copy
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from benchmarks._gpu import on_gpu
from benchmarks._peers import peers
from benchmarks._plain import Clock, Contender, endless, in_memory, loader, plain, products
from benchmarks._service import ListSink, ledger_sink, trainer
from benchmarks._workloads import WORKLOADS, Workload, load_data
from worker.trainer.data import Data
from worker.trainer.memory import keep_freed_memory

CPU = torch.device("cpu")
ROUND_SECONDS = 0.4  # of each contender, about; a slow one gets longer
REFERENCE = "trainer, SQL"


def contenders(workload: Workload, data: Data, compiled: bool, folder: Path, stack: ExitStack) -> dict[str, Contender]:
    spec, size = workload.spec(), workload.batch_size
    sink = stack.enter_context(ledger_sink(spec, CPU, folder))
    network = workload.plain(True)
    convolutions = any(isinstance(module, torch.nn.Conv2d) for module in network.modules())

    def listed(**changes: object) -> Contender:
        return trainer(workload.spec(**changes), data, CPU, folder, ListSink())

    def loop(fused: bool, channels_last: bool = False, compile_it: bool = False) -> Contender:
        batches = in_memory(data, size, channels_last)
        return plain(copy.deepcopy(network), batches, fused, channels_last, compile_it)

    found = {REFERENCE: trainer(spec, data, CPU, folder, sink), "trainer, list": listed()}
    if workload.name == "mlp":
        found["trainer, by autograd"] = trainer(spec, data, CPU, folder, ListSink(), by_hand=False)
    found["trainer, no batch norm"] = listed(batch_norm=False)
    for channels_last in (False, True)[: 1 + convolutions]:
        for fused in (True, False):
            layout = ", channels-last" if channels_last else ""
            found[f"plain{layout}, {'fused' if fused else 'foreach'}"] = loop(fused, channels_last)
    found["plain, no batch norm"] = plain(
        workload.plain(False), in_memory(data, size, convolutions), True, convolutions
    )
    found["plain, DataLoader"] = plain(copy.deepcopy(network), endless(loader(data, size)), True, convolutions)
    if compiled:
        found["plain, compiled"] = warm("plain", lambda: loop(True, convolutions, compile_it=True))
        found["trainer, compiled"] = warm("trainer", lambda: listed(training={"compile": True}))
    found |= peers(lambda: copy.deepcopy(network), loader(data, size))
    found["products"] = products(copy.deepcopy(network), next(in_memory(data, size, False)), convolutions)
    return found


def warm(name: str, make: Callable[[], Contender]) -> Contender:
    """Made and compiled, which is no part of its rate."""
    began = time.perf_counter()
    made = make()
    made(1)
    print(f"{name}, compiled: {time.perf_counter() - began:.1f} s until its first step is done, left out")
    return made


def measure(found: dict[str, Contender], rounds: int, steps: int) -> dict[str, list[float]]:
    """Steps a second of each, a round at a time; the first round, which warms up, is left out."""
    rates: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 1):
        for name, run in found.items():
            rate = run(steps)
            if number:
                rates[name].append(rate)
    return rates


def show(rates: dict[str, list[float]]) -> None:
    loops = [name for name in rates if name.startswith("plain") and "no batch norm" not in name]
    best = max(loops, key=lambda name: statistics.median(rates[name]))
    print(f"{'contender':30s} {'steps/s':>9s} {'spread':>15s}   ratio to {best}")
    for name, values in sorted(rates.items(), key=lambda item: -statistics.median(item[1])):
        ratio = statistics.median(value / other for value, other in zip(values, rates[best], strict=True))
        spread = f"{min(values):.1f}–{max(values):.1f}"
        print(f"{name:30s} {statistics.median(values):9.1f} {spread:>15s}   {ratio:.3f}")
    cost = statistics.median(
        1e3 / with_norm - 1e3 / without
        for with_norm, without in zip(rates["trainer, list"], rates["trainer, no batch norm"], strict=True)
    )
    print(f"batch norm costs {cost:.3f} ms a step\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="with the compiled contenders")
    parser.add_argument("--processor-time", action="store_true", help="instead of elapsed time, on a busy machine")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", nargs="+", choices=["bf16", "float32"], default=["bf16", "float32"])
    parser.add_argument("--depth", type=int, default=50, help="of the ResNet on a GPU")
    parser.add_argument("--size", type=int, default=224, help="of its images")
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 1024])
    given = parser.parse_args()
    if given.device == "cuda":
        if not torch.cuda.is_available():
            print("not measured: torch sees no GPU here")
            return
        on_gpu(given.depth, given.size, given.batch, given.precision, given.rounds)
        return
    Clock.of_process = given.processor_time
    torch.set_num_threads(1)
    keep_freed_memory()  # of all contenders: they share a process
    data, kind = load_data(given.data, CPU)
    clock = "processor time" if Clock.of_process else "elapsed time"
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    print(f"{kind}, {clock}, {given.rounds} rounds, 1 thread, {versions}")
    for name in given.workload:
        workload = WORKLOADS[name]
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            found = contenders(workload, data, given.compile, Path(folder), stack)
            steps = steps_of(found["trainer, list"])
            print(f"\n{name}, batch {workload.batch_size}, {steps} steps a round")
            show(measure(found, given.rounds, steps))


def steps_of(contender: Callable[[int], float]) -> int:
    contender(3)
    return max(4, int(contender(6) * ROUND_SECONDS))


if __name__ == "__main__":
    main()
