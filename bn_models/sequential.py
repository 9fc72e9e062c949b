"""The estimator `pooled_sequential`: each layer measured with all layers below it frozen, as inference will see them.

What a layer gets then depends on no batch: samples go through in chunks of the network's own size.
Layers that do not need one another, as those in the branches of a block, are measured in one sweep.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from bn_models.blocks import Parallel, Residual
from bn_models.moments import ChanMerge, merge_for, moments_of, normalize_by
from bn_models.networks import Network, rows_at_once
from bn_models.normalization import Statistical, normalizations
from bn_models.recurrent import LSTM, StepNorm

DEFAULT_SAMPLES = 4096
FLOAT32_BYTES = 4

Gather = Callable[[int, int], Tensor]


def sequential_samples(network: Network, rows: int, samples: int | None, memory_bytes: int) -> int:
    """How many samples to measure: `samples`; else all, if every layer's activations fit, else 4,096."""
    if samples is not None:
        return min(samples, rows)
    fits = all(_bytes(network, index, rows) <= memory_bytes for index in _measured_items(network))
    return rows if fits else min(DEFAULT_SAMPLES, rows)


def measure_sequentially(
    network: Network, gather: Gather, rows: int, device: torch.device, memory_bytes: int
) -> dict[Statistical, tuple[Tensor, Tensor, int]]:
    """(mean, biased variance or covariance, n) of each layer that is not frozen, over `rows` samples.

    `gather(start, end)` gives scaled inputs. The activations below the layer in turn are kept while
    they fit `memory_bytes`, and computed again from those last kept where they do not. The network is
    to be in evaluation mode, without gradients.
    """
    size = rows_at_once(network, device)
    source = _Activations(network, gather, list(pairwise([*range(0, rows, size), rows])))
    sweep = _Sweep()
    for index in _measured_items(network):
        keep = _bytes(network, index, rows) <= memory_bytes
        item = network.sequence[index]
        left = sum(not layer.frozen for layer in _layers_in(item))
        while left:
            sweep.begin()
            for chunk, x in enumerate(source.below(index, sweep, keep)):
                sweep.through(item, x, chunk)
            measured = sweep.end()
            if not measured:
                raise RuntimeError(
                    f"nothing in {network.layers[index].name} can be measured, and {left} layers are left"
                )
            left -= measured
    return sweep.measured


class _Sweep:
    """One way of all chunks through a part of the network, up to the layers that are not measured yet."""

    def __init__(self) -> None:
        self.measured: dict[Statistical, tuple[Tensor, Tensor, int]] = {}
        self._totals: dict[Statistical, ChanMerge] = {}
        self._paused: dict[tuple[LSTM, int], tuple[int, Tensor, Tensor]] = {}

    def begin(self) -> None:
        self._totals = {}

    def end(self) -> int:
        """How many layers were measured."""
        self.measured |= {layer: total.result() for layer, total in self._totals.items()}
        return len(self._totals)

    def run(self, modules: tuple[nn.Module, ...], x: Tensor, chunk: int) -> Tensor | None:
        """What comes out of the modules; None where a layer inside of them is not measured yet."""
        y: Tensor | None = x
        for module in modules:
            y = None if y is None else self.through(module, y, chunk)
        return y

    def through(self, module: nn.Module, x: Tensor, chunk: int) -> Tensor | None:
        if isinstance(module, Statistical):
            return self._normalized(module, x)
        if isinstance(module, LSTM) and module.input_norm is not None:
            return self._recurrent(module, x, chunk)
        if isinstance(module, Residual):
            ends = [self.run(module.body, x, chunk), self.run(module.shortcut, x, chunk)]
            done = [end for end in ends if end is not None]
            return done[0] + done[1] if len(done) == len(ends) else None
        if isinstance(module, Parallel):
            ends = [self.run(branch, x, chunk) for branch in module.branches]
            done = [end for end in ends if end is not None]
            return torch.cat(done, dim=1) if len(done) == len(ends) else None
        y: Tensor = module(x)
        return y

    def _normalized(self, layer: Statistical, x: Tensor) -> Tensor | None:
        if layer.frozen:
            return layer.normalize_by_stored(x)
        if layer in self.measured:
            mean, spread, _ = self.measured[layer]
            return normalize_by(layer, x, mean, spread)
        if layer not in self._totals:
            self._totals[layer] = merge_for(layer)
        self._totals[layer].add(moments_of(layer, x))
        return None

    def _recurrent(self, lstm: LSTM, x: Tensor, chunk: int) -> Tensor | None:
        """As LSTM.forward; where it stops at a step, the next sweep goes on from there."""
        complete = all(layer.frozen or layer in self.measured for layer in lstm.statistical())
        zeros = x.new_zeros(len(x), lstm.units)
        start, hidden, cell = (0, zeros, zeros) if complete else self._paused.get((lstm, chunk), (0, zeros, zeros))
        states = []
        for step in range(start, lstm.steps):
            self._paused[lstm, chunk] = (step, hidden, cell)
            by_input = self._at_step(lstm.input_norm, step, lstm.input(x[:, step]))
            by_hidden = self._at_step(lstm.hidden_norm, step, lstm.hidden(hidden))
            if by_input is None or by_hidden is None:
                return None
            cell, output = lstm.advance(by_input + by_hidden + lstm.bias, cell)
            normalized = self._at_step(lstm.cell_norm, step, cell)
            if normalized is None:
                return None
            hidden = output * torch.tanh(normalized)
            states.append(hidden)
        del self._paused[lstm, chunk]
        return hidden if lstm.outputs == "last" else torch.stack(states, dim=1)

    def _at_step(self, norm: StepNorm | None, step: int, x: Tensor) -> Tensor | None:
        if norm is None:
            return x
        normalized = self._normalized(norm.at(step), x)
        return None if normalized is None else norm.affine(normalized)


class _Activations:
    """What a layer of the list gets, chunk by chunk; kept from one sweep to the next where there is room."""

    def __init__(self, network: Network, gather: Gather, bounds: list[tuple[int, int]]) -> None:
        self._network, self._gather, self._bounds = network, gather, bounds
        self._level = 0  # of the list, whose inputs are kept; 0: the data itself, which needs no keeping
        self._kept: list[Tensor] = []

    def below(self, level: int, sweep: _Sweep, keep: bool) -> Iterator[Tensor]:
        """The inputs of layer `level`, through layers that are all measured."""
        between = self._network.sequence[self._level : level]
        for chunk, (start, end) in enumerate(self._bounds):
            x = self._kept[chunk] if self._level else self._gather(start, end)
            y = sweep.run(between, x, chunk)
            if y is None:
                raise RuntimeError(f"a layer below {self._network.layers[level].name} is not measured")
            if keep and between:
                self._kept[chunk : chunk + 1] = [y]
            yield y
        if keep and between:
            self._level = level


def _layers_in(module: nn.Module) -> Iterator[Statistical]:
    if isinstance(module, Residual):
        for inner in module.body + module.shortcut:
            yield from _layers_in(inner)
    elif isinstance(module, Parallel):
        for branch in module.branches:
            for inner in branch:
                yield from _layers_in(inner)
    else:
        yield from normalizations(module).values()


def _measured_items(network: Network) -> list[int]:
    """The places in the list of layers that have, or hold, something to measure."""
    return [
        index for index, module in enumerate(network.sequence) if any(not layer.frozen for layer in _layers_in(module))
    ]


def _bytes(network: Network, index: int, rows: int) -> int:
    """What it takes to keep the inputs of the layer at `index`, and the states of an LSTM there."""
    module = network.sequence[index]
    states = 2 * module.units if isinstance(module, LSTM) else 0
    return rows * (prod(network.placed[index].input_shape) + states) * FLOAT32_BYTES
