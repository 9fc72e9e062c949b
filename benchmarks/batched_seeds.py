"""Would several seeds of one network train faster as one batched computation, and with the same bits?

    python -m benchmarks.batched_seeds [--seeds 1 2 4 8 16] [--rounds 5] [--device cuda] [--data FOLDER] [--quick]

A study, not a part of the service. K seeds of the paper's MNIST network (with batch norm, batches of 60, one thread),
each with weights and batches of its own, loss and accuracy of every seed at every step:

  trainer       the service's own loop, one seed after the other
  plain         a loop by autograd (benchmarks/_plain.py), one seed after the other
  bmm           weights stacked to (K, outputs, inputs), products by torch.bmm, one batch norm of K·C channels
  bmm, by seed  the same with K batch norms and K output layers, each as a seed alone would have it
  torch.func    `stack_module_state`, and `vmap` over the plain module

Rates are steps of a seed in a second: of all K together. The differences are of weights after some hundred steps,
against K plain runs from the same weights on the same batches; 0 means equal bits.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from benchmarks._plain import Contender, plain, timed
from benchmarks._plain_networks import plain_mlp
from benchmarks._service import ListSink, trainer
from benchmarks._workloads import WORKLOADS, load_data
from worker.trainer.memory import keep_freed_memory

ROWS = 60
RATE = 0.05
ROUND_SECONDS = 0.5  # of each contender, about
Batch = tuple[Tensor, Tensor]
Forward = Callable[[Tensor], Tensor]
"""(K, N, 784) to logits (K, N, 10)."""


def network_of(seed: int, device: torch.device) -> nn.Sequential:
    torch.manual_seed(seed)
    network = plain_mlp(True)
    assert isinstance(network, nn.Sequential)
    return network.to(device)


def rows_of(seed: int, count: int) -> Iterator[Tensor]:
    """Indices (N,) of one batch after the other, in an order of this seed alone."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator)[: count // ROWS * ROWS].view(-1, ROWS)


def batches_of(data: Batch, seed: int) -> Iterator[Batch]:
    """Inputs (N, 784) and targets (N,) of one seed."""
    inputs, targets = data
    for rows in rows_of(seed, len(inputs)):
        here = rows.to(inputs.device)
        yield inputs.index_select(0, here), targets.index_select(0, here)


def stacked_batches(data: Batch, seeds: range) -> Iterator[Batch]:
    """Inputs (K, N, 784) and targets (K, N), gathered at once."""
    inputs, targets = data
    for rows in zip(*(rows_of(seed, len(inputs)) for seed in seeds), strict=True):
        here = torch.cat(rows).to(inputs.device)
        shape = len(seeds), ROWS
        yield inputs.index_select(0, here).view(*shape, -1), targets.index_select(0, here).view(shape)


class Stacked(nn.Module):
    """Networks of `plain_mlp` side by side: each parameter has an axis more in front."""

    def __init__(self, networks: list[nn.Sequential], at_once: bool) -> None:
        """`at_once`: one batch norm and one output layer for all, not one for each."""
        super().__init__()
        parameters, buffers = stack_module_state(networks)  # type: ignore[arg-type]
        self.values, self.averages, self._at_once = parameters, buffers, at_once
        self._linear = [name for name, part in networks[0].named_children() if isinstance(part, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        for name in self._linear[:-1]:
            y = torch.bmm(x, self.values[f"{name}.weight"].transpose(1, 2))
            norm = str(int(name) + 1)
            affine = self.values[f"{norm}.weight"], self.values[f"{norm}.bias"]
            averages = self.averages[f"{norm}.running_mean"], self.averages[f"{norm}.running_var"]
            x = self._normalized(y, *averages, *affine).sigmoid()
        last = self._linear[-1]
        weight, bias = self.values[f"{last}.weight"], self.values[f"{last}.bias"]
        if self._at_once:
            return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
        return torch.stack([functional.linear(*one) for one in zip(x.unbind(), weight, bias, strict=True)])

    def _normalized(self, y: Tensor, *parts: Tensor) -> Tensor:
        """(K, N, C) by the moments of the batch; `parts` (K, C) as torch's batch norm takes them."""
        count, rows, channels = y.shape
        if self._at_once:
            wide = y.transpose(0, 1).reshape(rows, -1)
            wide = functional.batch_norm(wide, *(part.view(-1) for part in parts), training=True)
            return wide.view(rows, count, channels).transpose(0, 1)
        each = zip(y.unbind(), *(part.unbind() for part in parts), strict=True)
        return torch.stack([functional.batch_norm(*one, training=True) for one in each])


def by_bmm(networks: list[nn.Sequential], at_once: bool) -> tuple[Forward, dict[str, Tensor]]:
    stacked = Stacked(networks, at_once)
    return stacked, stacked.values


def by_vmap(networks: list[nn.Sequential]) -> tuple[Forward, dict[str, Tensor]]:
    parameters, buffers = stack_module_state(networks)  # type: ignore[arg-type]

    def one(values: dict[str, Tensor], state: dict[str, Tensor], x: Tensor) -> Tensor:
        found: Tensor = functional_call(networks[0], (values, state), (x,))
        return found

    return lambda x: vmap(one)(parameters, buffers, x), parameters


BATCHED: dict[str, Callable[[list[nn.Sequential]], tuple[Forward, dict[str, Tensor]]]] = {
    "bmm": partial(by_bmm, at_once=True),
    "bmm, by seed": partial(by_bmm, at_once=False),
    "torch.func": by_vmap,
}


def batched(kind: str, data: Batch, seeds: range) -> tuple[Contender, dict[str, Tensor]]:
    """A loop that takes a step of every seed at a time, and its parameters with an axis of seeds in front."""
    device = data[0].device
    forward, parameters = BATCHED[kind]([network_of(seed, device) for seed in seeds])
    optimizer = torch.optim.SGD(parameters.values(), lr=RATE, fused=True)
    batches = stacked_batches(data, seeds)
    points: list[tuple[object, object]] = []

    def advance(steps: int) -> None:
        points.clear()
        for _ in range(steps):
            x, y = next(batches)
            logits = forward(x)
            losses = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)
            optimizer.zero_grad()
            losses.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            correct = (logits.argmax(2) == y).sum(1)
            on_host = device.type == "cpu"
            points.append((losses.tolist(), correct.tolist()) if on_host else (losses.detach(), correct))

    return timed(advance, device), parameters


def largest_difference(kind: str, data: Batch, seeds: range, steps: int) -> float:
    """Of any weight of any seed, between the batched computation and a plain run of that seed alone."""
    run, parameters = batched(kind, data, seeds)
    run(steps)
    worst = 0.0
    for place, seed in enumerate(seeds):
        network = network_of(seed, data[0].device)
        plain(network, batches_of(data, seed), fused=True)(steps)
        for name, value in network.named_parameters():
            worst = max(worst, (parameters[name][place] - value).abs().max().item())
    return worst


def measure(found: dict[str, tuple[int, Contender]], rounds: int) -> dict[str, float]:
    """Steps of a seed in a second, the median of rounds in which all take turns; the first warms up."""
    steps = {name: max(8, int(run(8) * ROUND_SECONDS)) for name, (_, run) in found.items()}
    rates: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 1):
        for name, (seeds, run) in found.items():
            rate = seeds * run(steps[name])
            if number:
                rates[name].append(rate)
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="before weights are compared")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="1 and 2 seeds, one round: does it run at all?")
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.rounds, given.steps = [1, 2], 1, 20
    torch.set_num_threads(1)
    keep_freed_memory()
    device, workload = torch.device(given.device), WORKLOADS["mlp"]
    everything, kind = load_data(given.data, device)
    inputs, targets = everything.training.between(0, len(everything.training))
    data = inputs.flatten(1), targets
    print(f"{kind}, {device}, {given.rounds} rounds, 1 thread, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        for count in given.seeds:
            seeds = range(count)
            alone = plain(network_of(0, device), batches_of(data, 0), fused=True)
            found = {"trainer": (1, trainer(workload.spec(), everything, device, Path(folder), ListSink()))}
            found |= {"plain": (1, alone)}
            found |= {name: (count, batched(name, data, seeds)[0]) for name in BATCHED}
            rates = measure(found, given.rounds)
            told = "  ".join(f"{name} {rate:6.0f}" for name, rate in rates.items())
            gains = ", ".join(f"{name} {rates[name] / rates['trainer']:.2f}" for name in BATCHED)
            apart = ", ".join(f"{name} {largest_difference(name, data, seeds, given.steps):.1e}" for name in BATCHED)
            print(f"K = {count:2d}: {told}; of the trainer: {gains}; difference after {given.steps} steps: {apart}")


if __name__ == "__main__":
    main()
