"""Batch normalization (Ioffe & Szegedy 2015, Algorithm 1), and the ways to run statistical layers otherwise."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from bn_models import exact
from core.spec.normalization import AffineOptions, BatchOptions, WhiteningOptions

# What a statistical layer keeps in its state beside gamma and beta; "_extra_state" is torch's name.
STATE_NAMES = ("running_mean", "running_var", "running_covariance", "_extra_state")

Normalize = Callable[["Statistical", Tensor], Tensor]


def register_affine(module: nn.Module, channels: int, options: AffineOptions) -> None:
    """Gives `module` the `gamma` and `beta` that are learned, at the values they start from; None where one is not."""
    gamma = torch.full((channels,), options.initial_gamma) if options.affine in (True, "gamma") else None
    beta = torch.full((channels,), options.initial_beta) if options.affine in (True, "beta") else None
    module.register_parameter("gamma", None if gamma is None else nn.Parameter(gamma))
    module.register_parameter("beta", None if beta is None else nn.Parameter(beta))


class Statistical(nn.Module, ABC):
    """A layer that normalizes by moments over samples: those of the batch in training, stored ones in evaluation.

    `running_mean` and `running_spread` hold the running average, or the population statistics put in
    their place. A frozen layer normalizes by them in training too, and moves nothing.
    """

    running_mean: Tensor
    running_var: Tensor
    gamma: nn.Parameter | None
    beta: nn.Parameter | None

    def __init__(self, channels: int, options: BatchOptions | WhiteningOptions) -> None:
        super().__init__()
        self.options = options
        self.eps, self.momentum, self.ghost_rows = options.eps, options.momentum, options.virtual_batch_size
        register_affine(self, channels, options)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.updates = 0  # of the running average; an int, because a tensor would cost an operation every step
        self.frozen = False
        self.frozen_n = 0  # values a channel behind the statistics that it was frozen with
        self.position = 0  # in the order of computation; the network numbers its layers
        self.substitute: Normalize | None = None

    @property
    @abstractmethod
    def running_spread(self) -> Tensor:
        """The stored variance (C,), or the stored covariance (C, g): a buffer, not a copy."""

    def forward(self, x: Tensor) -> Tensor:
        if self.substitute is not None:
            return self.substitute(self, x)
        return self.normalize(x)

    def normalize(self, x: Tensor) -> Tensor:
        """By the batch in training, moving the running average; in evaluation, or frozen, by the stored statistics."""
        if self.frozen or not self.training:
            return self.normalize_by_stored(x)
        if self.ghost_rows is not None and len(x) >= 2 * self.ghost_rows:
            return torch.cat([self._train(rows) for rows in self.ghosts(x)])
        return self._train(x)

    def normalize_by_batch(self, x: Tensor) -> Tensor:
        """By the moments of the batch, if it is not frozen; the running average stays as it is."""
        if self.frozen:
            return self.normalize_by_stored(x)
        parts = [self._by_batch(rows) for rows in self.ghosts(x)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @abstractmethod
    def normalize_by_stored(self, x: Tensor) -> Tensor:
        """By the running average, or by the population statistics put in its place."""

    def ghosts(self, x: Tensor) -> tuple[Tensor, ...]:
        """The runs of rows that are normalized together."""
        return tuple(x[start:end] for start, end in self.ghost_bounds(len(x)))

    def ghost_bounds(self, rows: int) -> list[tuple[int, int]]:
        """(start, end) of each ghost batch: `virtual_batch_size` rows, the last one with the remainder."""
        size = self.ghost_rows or rows
        starts = range(0, max(1, rows - size + 1), max(1, size))
        return list(pairwise([*starts, rows]))

    def freeze(self, n: int) -> None:
        """From now on the stored statistics, which `n` values a channel stand behind, are what it normalizes by."""
        self.frozen, self.frozen_n = True, n

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.updates, self.frozen, self.frozen_n])

    def set_extra_state(self, state: Tensor) -> None:
        # A state of one number is of a version that froze no layers.
        self.updates, frozen, self.frozen_n = state.tolist() if state.dim() else (int(state), 0, 0)
        self.frozen = bool(frozen)

    def _factor(self) -> float:
        """Counts an update of the running average; the weight of its newest batch: `momentum`, or 1/k of the k-th."""
        self.updates += 1
        return 1.0 / self.updates if self.momentum is None else self.momentum

    @abstractmethod
    def _train(self, x: Tensor) -> Tensor:
        """By the moments of these rows, moving the running average."""

    @abstractmethod
    def _by_batch(self, x: Tensor) -> Tensor:
        """By the moments of these rows; the running average stays."""


class BatchNorm(Statistical):
    """y = gamma · (x − mean) / sqrt(variance + eps) + beta, per channel (axis 1 of x).

    In training by the moments of the batch, N·H·W values a channel, with the biased variance; the
    running average holds the unbiased variance, as torch keeps it.
    """

    def __init__(self, channels: int, options: BatchOptions) -> None:
        super().__init__(channels, options)
        self.register_buffer("running_var", torch.ones(channels))

    @property
    def running_spread(self) -> Tensor:
        return self.running_var

    def normalize_by_stored(self, x: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        return functional.batch_norm(x, mean, variance, self.gamma, self.beta, training=False, eps=self.eps)

    def _train(self, x: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        if not exact.has_long_sums(x):
            return functional.batch_norm(x, mean, variance, self.gamma, self.beta, True, self._factor(), self.eps)
        y, moments = exact.batch_norm(x, self.gamma, self.beta, self.eps)
        with exact.unwarned():
            exact.move(mean, variance, moments, self._factor())
        return y

    def _by_batch(self, x: Tensor) -> Tensor:
        if exact.has_long_sums(x):
            return exact.batch_norm(x, self.gamma, self.beta, self.eps)[0]
        return functional.batch_norm(x, None, None, self.gamma, self.beta, training=True, eps=self.eps)


@dataclass(frozen=True)
class Moments:
    """Mean and biased variance (float64, one a channel) of the `n` values a channel of one batch."""

    mean: Tensor
    variance: Tensor
    n: int


def normalizations(network: nn.Module) -> dict[str, Statistical]:
    """The statistical layers of a network by name, in order of computation."""
    layers = {name: module for name, module in network.named_modules() if isinstance(module, Statistical)}
    return dict(sorted(layers.items(), key=lambda item: item[1].position))


@contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """Dropout off, statistical layers by their stored statistics; then every module is back in the mode it had.

    `network.train(before)` would not do: it puts all modules into one mode.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def substituted(network: nn.Module, normalize: Normalize) -> Iterator[None]:
    """Every statistical layer computes `normalize(layer, x)` instead of its own."""
    layers = normalizations(network).values()
    before = [layer.substitute for layer in layers]
    try:
        for layer in layers:
            layer.substitute = normalize
        yield
    finally:
        for layer, substitute in zip(layers, before, strict=True):
            layer.substitute = substitute


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Evaluation (dropout off) by the moments of each batch; running averages are not touched."""
    with evaluation(network), substituted(network, lambda layer, x: layer.normalize_by_batch(x)):
        yield


@contextmanager
def recording(network: nn.Module) -> Iterator[dict[str, Moments]]:
    """Collects the moments of what each statistical layer gets, by layer name; the last batch stands.

    The layers go on as they would: under `batch_statistics`, in training, or in evaluation.
    """
    names = {layer: name for name, layer in normalizations(network).items()}
    before = {layer: layer.substitute for layer in names}
    moments: dict[str, Moments] = {}

    def record(layer: Statistical, x: Tensor) -> Tensor:
        with torch.no_grad():
            axes = [axis for axis in range(x.dim()) if axis != 1]
            variance, mean = torch.var_mean(x.double(), dim=axes, correction=0)
            moments[names[layer]] = Moments(mean, variance, x.numel() // x.shape[1])
        normalize = before[layer]
        return layer.normalize(x) if normalize is None else normalize(layer, x)

    with substituted(network, record):
        yield moments
