"""Loops that do nothing but train, and the matrix products and convolutions alone, which no loop can beat."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

if TYPE_CHECKING:  # a script that only trains imports no more than torch
    from worker.trainer.data import Data

Contender = Callable[[int], float]
"""Takes so many steps, and gives steps a second."""
Batch = tuple[Tensor, Tensor]


class Clock:
    """The time that goes by, or, on a machine with other work, that of this process on a processor."""

    of_process = False

    @classmethod
    def now(cls) -> float:
        return time.process_time() if cls.of_process else time.perf_counter()


def timed(advance: Callable[[int], None], device: torch.device) -> Contender:
    def run(steps: int) -> float:
        _wait(device)
        began = Clock.now()
        advance(steps)
        _wait(device)
        return steps / (Clock.now() - began)

    return run


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_memory(data: "Data", batch_size: int, channels_last: bool) -> Iterator[Batch]:
    """Batches of prescaled float32 inputs, in a fresh order each epoch."""
    return shuffled(*data.training.between(0, len(data.training)), batch_size, channels_last)


def shuffled(inputs: Tensor, targets: Tensor, batch_size: int, channels_last: bool = False) -> Iterator[Batch]:
    while True:
        order = torch.randperm(len(inputs)).to(inputs.device)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            x = inputs.index_select(0, rows)
            yield x.contiguous(memory_format=torch.channels_last) if channels_last else x, targets.index_select(0, rows)


def loader(data: "Data", batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
    inputs, targets = data.training.between(0, len(data.training))
    return DataLoader(TensorDataset(inputs, targets), batch_size, shuffle=True, drop_last=True)


def plain(
    network: nn.Module,
    batches: Iterator[Batch],
    fused: bool,
    channels_last: bool = False,
    compiled: bool = False,
    bf16: bool = False,
) -> Contender:
    """Loss and accuracy of every step as numbers in a list, as the trainer has them; on a GPU they stay there."""
    device = next(network.parameters()).device
    if channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, fused=fused, foreach=not fused)
    forward: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False) if compiled else network
    points: list[tuple[float | Tensor, float | Tensor]] = []

    def advance(steps: int) -> None:
        points.clear()
        for x, y in itertools.islice(batches, steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = forward(x)
            loss = functional.cross_entropy(logits.float(), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            correct = (logits.argmax(1) == y).sum()
            on_host = device.type == "cpu"
            points.append((loss.item(), correct.item() / len(y)) if on_host else (loss.detach(), correct))

    return timed(advance, device)


def endless(batches: DataLoader[tuple[Tensor, ...]]) -> Iterator[Batch]:
    while True:
        yield from batches  # type: ignore[misc]


def products(network: nn.Module, batch: Batch, channels_last: bool) -> Contender:
    """The products and convolutions of a step, forward and backward, each into a tensor of its own."""
    calls: list[Callable[[], object]] = []
    first = True

    def note(module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
        nonlocal first
        (x,) = inputs
        calls.extend(
            _convolution(module, x, y, not first)
            if isinstance(module, nn.Conv2d)
            else _product(module, x, y, not first)
        )
        first = False

    if channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batch = batch[0].contiguous(memory_format=torch.channels_last), batch[1]
    hooks = [
        module.register_forward_hook(note) for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    with torch.no_grad():
        network(batch[0])
    for hook in hooks:
        hook.remove()

    @torch.no_grad()
    def advance(steps: int) -> None:
        for _ in range(steps):
            for call in calls:
                call()

    return timed(advance, batch[0].device)


def _product(module: nn.Module, x: Tensor, y: Tensor, needs_input: bool) -> list[Callable[[], object]]:
    weight = module.weight
    gradient, transposed = torch.randn_like(y), weight.t()
    out, weight_gradient, input_gradient = torch.empty_like(y), torch.empty_like(weight), torch.empty_like(x)
    calls = [
        lambda: torch.mm(x, transposed, out=out),
        lambda: torch.mm(gradient.t(), x, out=weight_gradient),
    ]
    return [*calls, lambda: torch.mm(gradient, weight, out=input_gradient)] if needs_input else calls


def _convolution(module: nn.Module, x: Tensor, y: Tensor, needs_input: bool) -> list[Callable[[], object]]:
    weight, gradient = module.weight, torch.randn_like(y)
    stride, padding, kernel = module.stride, module.padding, torch.ops.aten.convolution_backward.default
    mask = [needs_input, True, False]
    return [
        lambda: functional.conv2d(x, weight, None, stride, padding),
        lambda: kernel(gradient, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, mask),
    ]
