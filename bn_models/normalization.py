"""Batch normalization (Ioffe & Szegedy 2015, Algorithm 1), and the ways to run a network's batch norm otherwise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.spec.normalization import BatchNormSpec

# What a batch norm layer keeps in its state beside gamma and beta; "_extra_state" is torch's name.
STATE_NAMES = ("running_mean", "running_var", "_extra_state")

Normalize = Callable[["BatchNorm", Tensor], Tensor]


class BatchNorm(nn.Module):
    """y = gamma · (x − mean) / sqrt(variance + eps) + beta, per channel (axis 1 of x).

    In training by the moments of the batch, N·H·W values a channel, with the biased variance; in
    evaluation by `running_mean` and `running_var`, which hold the running average (unbiased
    variance, as torch keeps it) or the population statistics put in their place.
    """

    running_mean: Tensor
    running_var: Tensor
    gamma: nn.Parameter | None
    beta: nn.Parameter | None

    def __init__(self, channels: int, options: BatchNormSpec) -> None:
        super().__init__()
        self.options = options
        self.eps, self.momentum = options.eps, options.momentum
        self.register_parameter("gamma", nn.Parameter(torch.ones(channels)) if options.affine else None)
        self.register_parameter("beta", nn.Parameter(torch.zeros(channels)) if options.affine else None)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.updates = 0  # of the running average; an int, because a tensor would cost an operation every step
        self.substitute: Normalize | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.substitute is not None:
            return self.substitute(self, x)
        return self.normalize(x)

    def normalize(self, x: Tensor) -> Tensor:
        """By the batch in training, moving the running average; by the stored statistics in evaluation."""
        mean, variance = self.running_mean, self.running_var
        if self.training:
            self.updates += 1
        return functional.batch_norm(x, mean, variance, self.gamma, self.beta, self.training, self.momentum, self.eps)

    def normalize_by_batch(self, x: Tensor) -> Tensor:
        """By the moments of the batch, whatever the mode; the running average stays as it is."""
        return functional.batch_norm(x, None, None, self.gamma, self.beta, training=True, eps=self.eps)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        self.updates = int(state)


@dataclass(frozen=True)
class Moments:
    """Mean and biased variance (float64, one a channel) of the `n` values a channel of one batch."""

    mean: Tensor
    variance: Tensor
    n: int


def normalizations(network: nn.Module) -> dict[str, BatchNorm]:
    """The batch norm layers of a network by name, in order of computation."""
    return {name: module for name, module in network.named_modules() if isinstance(module, BatchNorm)}


@contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """Dropout off, batch norm by its stored statistics; then every module is back in the mode it had.

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
    """Every batch norm layer computes `normalize(layer, x)` instead of its own."""
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
    with evaluation(network), substituted(network, BatchNorm.normalize_by_batch):
        yield


@contextmanager
def recording(network: nn.Module) -> Iterator[dict[str, Moments]]:
    """Collects the moments of what each batch norm layer gets, by layer name; the last batch stands.

    The layers go on as they would: under `batch_statistics`, in training, or in evaluation.
    """
    names = {layer: name for name, layer in normalizations(network).items()}
    before = {layer: layer.substitute or BatchNorm.normalize for layer in names}
    moments: dict[str, Moments] = {}

    def record(layer: BatchNorm, x: Tensor) -> Tensor:
        with torch.no_grad():
            axes = [axis for axis in range(x.dim()) if axis != 1]
            variance, mean = torch.var_mean(x.double(), dim=axes, correction=0)
            moments[names[layer]] = Moments(mean, variance, x.numel() // x.shape[1])
        return before[layer](layer, x)

    with substituted(network, record):
        yield moments
