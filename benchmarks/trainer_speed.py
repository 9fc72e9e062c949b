"""Is the trainer's loop as fast as a loop that does nothing but train?

    python benchmarks/trainer_speed.py [--rounds 9] [--steps 300] [--data FOLDER]

The network of Ioffe & Szegedy's first experiment (784-100-100-100-10, sigmoid, batch norm, batches
of 60) on one thread. Contenders take turns in one process, so that a busy machine slows all of them:

  plain      torch modules, prescaled float32 data, fused SGD, loss and accuracy read every step
  trainer    worker.trainer.loop.Loop with a list for a sink: the same, and metric points, commands, seeds
  with norm  the trainer, recording the gradient norm at every step
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bn_models.architecture import layers_of
from bn_models.export import InputScaling
from bn_models.networks import build
from core.artifacts import ArtifactStore
from core.errors import EvenkeelError
from core.spec import SOURCES, JobSpec
from worker.messages import Command, Message, Order
from worker.trainer.checkpoint import Progress
from worker.trainer.data import Data, Scaler, Split, prepare
from worker.trainer.files import DataFolder
from worker.trainer.loop import Loop, Run
from worker.trainer.monitor import Monitor
from worker.trainer.optimization import build_optimizer
from worker.trainer.patience import Patience
from worker.trainer.reporting import Reporter

CPU = torch.device("cpu")
SPEC: dict[str, Any] = {
    "dataset": {"source": "mnist"},
    "network": {"family": "mlp", "activation": "sigmoid", "initialization": {"kind": "normal"}},
    "optimizer": {"kind": "sgd", "learning_rate": 0.5},
    "training": {"steps": 10_000_000, "evaluate_every": 10_000_000, "checkpoint_every": 10_000_000},
}
Steps = Callable[[int], None]


class Counter:
    """A sink that keeps messages, and cancels when the steps of a round are done."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.left = 0

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def command(self) -> Command | None:
        self.left -= 1
        return "cancel" if self.left < 0 else None


def trainer_steps(data: Data, folder: str, record_gradient_norm: bool) -> Steps:
    spec = JobSpec.model_validate(
        SPEC | {"training": SPEC["training"] | {"record_gradient_norm": record_gradient_norm}}
    )
    layers = layers_of(spec.network, spec.batch_norm, data.facts.input_shape, data.facts.outputs)
    network = build(layers, data.facts.input_shape, spec.network.initialization, seed=0)
    progress = Progress(network, build_optimizer(network, spec.optimizer), Monitor("test/loss"))
    sink = Counter()
    reporter = Reporter(sink)
    order = Order("job_benchmark", spec.model_dump(mode="json"), 1, 1, folder, folder, "")
    run = Run(order, spec, CPU, data, progress, ArtifactStore(folder), Patience(60, reporter), reporter)
    loop = Loop(run)

    def advance(steps: int) -> None:
        sink.left = steps
        sink.messages.clear()
        loop.train()

    return advance


def plain_steps(data: Data) -> Steps:
    inputs, targets = data.training.between(0, len(data.training))
    inputs = inputs.flatten(1)
    sizes = (784, 100, 100, 100)
    hidden = [
        module
        for before, after in itertools.pairwise(sizes)
        for module in (nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.Sigmoid())
    ]
    network = nn.Sequential(*hidden, nn.Linear(100, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5, fused=True)
    losses: list[float] = []
    accuracies: list[float] = []
    order, position = torch.randperm(len(inputs)), 0

    def step(rows: Tensor) -> None:
        x, y = inputs.index_select(0, rows), targets.index_select(0, rows)
        logits = network(x)
        loss = functional.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
        accuracies.append((logits.argmax(1) == y).sum().item() / 60)

    def advance(steps: int) -> None:
        nonlocal order, position
        for _ in range(steps):
            if position + 60 > len(order):
                order, position = torch.randperm(len(inputs)), 0
            step(order[position : position + 60])
            position += 60

    return advance


def load_data(folder: Path) -> tuple[Data, str]:
    """MNIST from `folder`, or random pixels of its shape: the time of a step does not depend on them."""
    try:
        return prepare(JobSpec.model_validate(SPEC).dataset, DataFolder(folder, "http://127.0.0.1:9"), CPU), "mnist"
    except EvenkeelError:
        return random_data(), "random pixels"


def random_data() -> Data:
    generator = torch.Generator().manual_seed(0)
    scaling = InputScaling(np.zeros(1), np.full(1, 1 / 255))
    scaler = Scaler.of(scaling, CPU)

    def split(rows: int) -> Split:
        pixels = torch.randint(0, 256, (rows, 1, 28, 28), dtype=torch.uint8, generator=generator)
        return Split(pixels, torch.randint(0, 10, (rows,), generator=generator), None, scaler)

    test = split(10_000)
    probe = test.inputs[:128].float().numpy()
    return Data(SOURCES["mnist"], split(60_000), None, test, scaling, None, tuple("0123456789"), (), probe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=300, help="of each contender in each round")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, kind = load_data(arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        contenders = {
            "plain": plain_steps(data),
            "trainer": trainer_steps(data, folder, record_gradient_norm=False),
            "with norm": trainer_steps(data, folder, record_gradient_norm=True),
        }
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for round_number in range(arguments.rounds + 1):
            for name, advance in contenders.items():
                began = time.perf_counter()
                advance(arguments.steps)
                if round_number:  # the first round warms up
                    rates[name].append(arguments.steps / (time.perf_counter() - began))
    print(f"{kind}, {arguments.rounds} rounds of {arguments.steps} steps, 1 thread, torch {torch.__version__}")
    for name, values in rates.items():
        ratios = [value / plain for value, plain in zip(values, rates["plain"], strict=True)]
        spread = f"{min(values):.0f}–{max(values):.0f}"
        ratio = f"ratio to plain {statistics.median(ratios):.3f}"
        print(f"{name:10s} {statistics.median(values):7.0f} steps/s ({spread}), {ratio}")
    cost = statistics.median(
        1e6 / norm - 1e6 / bare for norm, bare in zip(rates["with norm"], rates["trainer"], strict=True)
    )
    print(f"record_gradient_norm costs {cost:.0f} µs a step")


if __name__ == "__main__":
    main()
