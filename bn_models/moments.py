"""Moments of batches, exact to 1e-6, and how those of many batches become those of a population.

Sums of squares are of centered values, so that nothing cancels: with u = 2^-24, a float32 difference
from a mean has a relative error of u, its square 3u, and a sum of 8 such squares 7u more. These sums
are added in float64. Their 10u is 6e-7, whatever mean, deviation and number of values are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bn_models.normalization import Statistical
from bn_models.whitening import Whitening

RUN = 8  # float32 values that are summed before float64 takes over
BLOCK_ELEMENTS = 2**17  # squares are taken so many at a time on a CPU, to stay in its caches


@dataclass(frozen=True)
class GroupMoments:
    """Of G batches of `n` values a channel, in float64: means (G, C), and sums of squared deviations (G, C).

    Of a whitening layer `squares` are sums of products with the channels of the own group, (G, C, g).
    """

    mean: Tensor
    squares: Tensor
    n: int


def normalize_groups(layer: Statistical, x: Tensor, groups: int) -> tuple[list[GroupMoments], Tensor]:
    """Normalizes `groups` batches at once, each by its own moments (Algorithm 1); ghost batches by theirs.

    x: (batch · groups, C, *spatial), row i·groups + j being sample i of batch j. Gives the moments of
    each batch and y in the shape and dtype of x; the same as batch by batch.
    """
    values, rows = _grouped(x, groups), len(x) // groups
    normalized = torch.empty_like(values)
    bounds = layer.ghost_bounds(rows)
    moments = []
    for start, end in bounds:
        centered, around = _centered(values[start:end], out=normalized[start:end])
        part, shift = _moments(layer, centered, around)
        _normalize(layer, centered, shift, part.squares / part.n)
        moments.append(part)
    return moments, normalized.view(x.shape)


def moments_of(layer: Statistical, x: Tensor) -> GroupMoments:
    """The moments of one batch x (N, C, *spatial), as `layer` has them."""
    return _moments(layer, *_centered(_grouped(x, 1)))[0]


def normalize_by(layer: Statistical, x: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """By a float64 mean (C,) and a variance (C,) or covariance (C, g), with no digit of them lost to a large mean."""
    values = _grouped(x, 1)
    near = mean.to(values.dtype)
    centered = values - near[:, None]
    _normalize(layer, centered, (mean - near.double())[None], spread[None])
    return centered.view(x.shape)


def _grouped(x: Tensor, groups: int) -> Tensor:
    """(batch · groups, C, *spatial) as a view (batch, groups, C, positions) of any memory format."""
    dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    positions = x.shape[2:].numel()
    return (x if dense else x.contiguous()).view(-1, groups, x.shape[1], positions)


def _centered(values: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """values − m, and m (groups, C), which is near the mean of each batch; the difference is exact to one rounding."""
    near = values.mean((0, 3))
    return torch.sub(values, near[:, :, None], out=out), near


def _moments(layer: Statistical, centered: Tensor, near: Tensor) -> tuple[GroupMoments, Tensor]:
    """Moments of near + centered, and how far the mean lies from `near`, float64 (groups, C)."""
    n = centered.shape[0] * centered.shape[3]
    rows = max(RUN, BLOCK_ELEMENTS // centered[0].numel()) if centered.device.type == "cpu" else len(centered)
    shift, squares = torch.zeros((), device=centered.device), torch.zeros((), device=centered.device)
    for values in torch.split(centered, rows):
        # Vectors are few next to the product that made them: their squares need no float32.
        block = values.double() if values.shape[3] == 1 else values
        shift = shift + _sum(block)
        squares = squares + (_products(layer, block) if isinstance(layer, Whitening) else _sum(block * block))
    shift = shift / n
    outer = layer.outer(shift) if isinstance(layer, Whitening) else shift.square()
    return GroupMoments(near.double() + shift, squares - n * outer, n), shift


def _products(layer: Whitening, centered: Tensor) -> Tensor:
    """Sums of products of deviations as rows, float64 (groups, C, g)."""
    parts = layer.split(centered.double(), 2)
    return layer.join([torch.einsum("bjgsp,bjgtp->jgst", part, part) for part in parts])


def _sum(values: Tensor) -> Tensor:
    """Over batch and positions, float64 (groups, C): short runs of samples in their own dtype, those in float64."""
    full = len(values) // RUN * RUN
    total = torch.zeros((), device=values.device)
    if full:
        runs = values[:full].view(-1, RUN, *values.shape[1:]).sum(1)
        total = total + runs.sum((0, 3), dtype=torch.float64)
    if full < len(values):
        total = total + values[full:].sum(0).sum(2, dtype=torch.float64)
    return total


def _normalize(layer: Statistical, centered: Tensor, shift: Tensor, spread: Tensor) -> None:
    """In place: gamma · M (centered − shift) + beta, M being 1/sqrt(variance + eps) or the whitening matrix."""
    gamma = 1.0 if layer.gamma is None else layer.gamma.double()
    beta = 0.0 if layer.beta is None else layer.beta.double()
    if isinstance(layer, Whitening):
        parts = zip(layer.matrices(spread), layer.split(centered.sub_(_like(shift, centered)), 2), strict=True)
        whitened = [torch.einsum("jgst,bjgtp->bjgsp", matrix.to(part.dtype), part) for matrix, part in parts]
        centered.copy_(torch.cat([part.flatten(2, 3) for part in whitened], dim=2))
        factor, constant = gamma, beta
    else:
        factor = torch.rsqrt(spread + layer.eps) * gamma
        constant = beta - shift * factor
    if isinstance(factor, Tensor):
        centered.mul_(_like(factor, centered))
    if isinstance(constant, Tensor):
        centered.add_(_like(constant, centered))


def _like(values: Tensor, centered: Tensor) -> Tensor:
    """(groups, C) or (C,) float64 → in the dtype of (batch, groups, C, positions), to broadcast against it."""
    return values.to(centered.dtype)[..., None]


class ChanMerge:
    """Moments of all values seen, by the law of total variance; equal for every way to split them.

    Chan, Golub & LeVeque (1979): with d = mean_b − mean_a, M = M_a + M_b + d² · n_a · n_b / n.
    `product` is what stands for d²: for covariances d dᵀ.
    """

    def __init__(self, product: Callable[[Tensor], Tensor] = torch.square) -> None:
        self._product = product
        self.n = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def add(self, moments: GroupMoments) -> None:
        groups = len(moments.mean)
        mean = moments.mean.mean(0)
        between = moments.n * self._product(moments.mean - mean).sum(0)
        squares = moments.squares.sum(0) + between
        n = groups * moments.n
        if self.n == 0:
            self.n, self.mean, self.squares = n, mean, squares
            return
        total = self.n + n
        difference = mean - self.mean
        self.squares = self.squares + squares + self._product(difference) * (self.n * n / total)
        self.mean = self.mean + difference * (n / total)
        self.n = total

    def result(self) -> tuple[Tensor, Tensor, int]:
        """(mean, biased variance or covariance, n)."""
        return self.mean, self.squares / self.n, self.n


def merge_for(layer: Statistical) -> ChanMerge:
    """Of covariances for a whitening layer, of variances for any other."""
    return ChanMerge(layer.outer) if isinstance(layer, Whitening) else ChanMerge()


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
        """(mean, unbiased variance or covariance, n)."""
        return self.means / self.batches, self.variances / self.batches, self.n
