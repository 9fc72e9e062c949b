"""Moments of batches in float64, and how those of many batches become those of a population."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bn_models.normalization import BatchNorm

BLOCK_ELEMENTS = 2**18


@dataclass(frozen=True)
class GroupMoments:
    """Of G batches of `n` values a channel: means and sums of squared deviations, float64 (G, C)."""

    mean: Tensor
    squares: Tensor
    n: int


def normalize_groups(layer: BatchNorm, x: Tensor, groups: int) -> tuple[GroupMoments, Tensor]:
    """Batch norm of `groups` batches at once, each by its own moments (Algorithm 1).

    x: (batch · groups, C, *spatial), row i·groups + j being sample i of batch j. Gives the moments of
    each batch and y in the shape and dtype of x; the same as batch by batch.
    """
    channels = x.shape[1]
    values = x.reshape(-1, groups, channels, x[0, 0].numel())
    normalized = torch.empty_like(values)
    mean = torch.empty(groups, channels, dtype=torch.float64, device=x.device)
    squares = torch.empty_like(mean)
    # A few channels at a time: float64 copies of whole feature maps would fall out of the caches.
    width = max(1, BLOCK_ELEMENTS * channels // values.numel())
    for first in range(0, channels, width):
        block = slice(first, first + width)
        centered = values[:, :, block].to(torch.float64, copy=True)
        mean[:, block] = centered.mean((0, 3))
        centered.sub_(mean[:, block, None])
        squares[:, block] = (centered * centered).sum((0, 3))
        _scale_and_shift(layer, block, centered, squares[:, block], out=normalized[:, :, block])
    moments = GroupMoments(mean, squares, values.numel() // (groups * channels))
    return moments, normalized.view(x.shape)


def _scale_and_shift(layer: BatchNorm, block: slice, centered: Tensor, squares: Tensor, out: Tensor) -> None:
    """out = gamma · centered / sqrt(variance + eps) + beta, for the channels of `block`."""
    n = centered.shape[0] * centered.shape[3]
    factor = torch.rsqrt(squares / n + layer.eps)
    if layer.gamma is not None and layer.beta is not None:
        factor *= layer.gamma[block]
        out.copy_(centered.mul_(factor[:, :, None]).add_(layer.beta[block, None]))
    else:
        out.copy_(centered.mul_(factor[:, :, None]))


class ChanMerge:
    """Moments of all values seen, by the law of total variance; equal for every way to split them.

    Chan, Golub & LeVeque (1979): with d = mean_b − mean_a, M = M_a + M_b + d² · n_a · n_b / n.
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def add(self, moments: GroupMoments) -> None:
        groups = len(moments.mean)
        mean = moments.mean.mean(0)
        between = moments.n * (moments.mean - mean).square().sum(0)
        squares = moments.squares.sum(0) + between
        n = groups * moments.n
        if self.n == 0:
            self.n, self.mean, self.squares = n, mean, squares
            return
        total = self.n + n
        difference = mean - self.mean
        self.squares = self.squares + squares + difference.square() * (self.n * n / total)
        self.mean = self.mean + difference * (n / total)
        self.n = total

    def result(self) -> tuple[Tensor, Tensor, int]:
        """(mean, biased variance, n)."""
        return self.mean, self.squares / self.n, self.n


class BatchMean:
    """Ioffe & Szegedy 2015, Algorithm 2: E[x] = mean of batch means, Var[x] = m/(m−1) · mean of batch variances.

    m counts all values a channel of a batch, N·H·W for feature maps.
    """

    def __init__(self) -> None:
        self.batches = 0
        self.n = 0
        self.means = torch.zeros(())
        self.variances = torch.zeros(())

    def add(self, moments: GroupMoments) -> None:
        self.batches += len(moments.mean)
        self.n += len(moments.mean) * moments.n
        self.means = self.means + moments.mean.sum(0)
        self.variances = self.variances + moments.squares.sum(0) / (moments.n - 1)

    def result(self) -> tuple[Tensor, Tensor, int]:
        """(mean, unbiased variance, n)."""
        return self.means / self.batches, self.variances / self.batches, self.n
