"""Decorrelated batch normalization (Huang et al. 2018) by Newton's iteration (Huang et al. 2019, IterNorm).

Groups of channels are whitened together: y = gamma · (M (x − mean)) + beta, where M is what a fixed
number of Newton steps makes of the inverse square root of the group's covariance.
"""

import torch
from torch import Tensor

from bn_models.normalization import Statistical
from core.spec.normalization import WhiteningOptions


class Whitening(Statistical):
    """x: (N, C) or (N, C, H, W). Covariances are stored as (C, g): row i has those of channel i with its own
    group, biased and without eps, zero-padded where the last group is smaller."""

    running_covariance: Tensor

    def __init__(self, channels: int, options: WhiteningOptions) -> None:
        super().__init__(channels, options)
        self.channels, self.iterations = channels, options.iterations
        self.size = min(options.group_size, channels)
        rows = torch.zeros(channels, self.size)
        rows[torch.arange(channels), torch.arange(channels) % self.size] = 1.0
        self.register_buffer("running_covariance", rows)

    @property
    def running_spread(self) -> Tensor:
        return self.running_covariance

    @property
    def running_var(self) -> Tensor:  # type: ignore[override]
        return self.variance_of(self.running_covariance)

    def variance_of(self, rows: Tensor) -> Tensor:
        """The diagonal (…, C) of covariances stored as (…, C, g)."""
        columns = (torch.arange(self.channels, device=rows.device) % self.size).expand(rows.shape[:-1])
        return rows.gather(-1, columns.unsqueeze(-1)).squeeze(-1)

    def outer(self, difference: Tensor) -> Tensor:
        """d dᵀ of deviations (…, C), cut to the groups: (…, C, g)."""
        return self.join([part.unsqueeze(-1) * part.unsqueeze(-2) for part in self.split(difference, -1)])

    def split(self, values: Tensor, axis: int) -> list[Tensor]:
        """The channels on `axis`, cut into (groups, channels of a group): the full groups, then the last one."""
        full = self.channels // self.size * self.size
        sizes = [full, self.channels - full] if full < self.channels else [full]
        shapes = [(length // min(length, self.size), min(length, self.size)) for length in sizes]
        parts = torch.split(values, sizes, axis)
        return [torch.unflatten(part, axis, shape) for part, shape in zip(parts, shapes, strict=True)]

    def join(self, parts: list[Tensor]) -> Tensor:
        """Square blocks (…, groups, s, s) of all groups, stored as rows (…, C, g)."""
        rows = [part.flatten(-3, -2) for part in parts]
        return torch.cat([torch.nn.functional.pad(part, (0, self.size - part.shape[-1])) for part in rows], dim=-2)

    def blocks(self, rows: Tensor) -> list[Tensor]:
        """The inverse of `join`."""
        return [part[..., : part.shape[-2]] for part in self.split(rows, -2)]

    def matrices(self, rows: Tensor) -> list[Tensor]:
        """M of each group, in the dtype of the covariances `rows`."""
        return [newton(block, self.eps, self.iterations) for block in self.blocks(rows)]

    def normalize_by_stored(self, x: Tensor) -> Tensor:
        matrices = self.matrices(self.running_covariance.double())
        with torch.autocast(x.device.type, enabled=False):
            values = _by_channel(x)
            return self._shaped(self._whitened(values - self.running_mean[:, None].to(values.dtype), matrices), x)

    def _train(self, x: Tensor) -> Tensor:
        y, mean, rows = self._by_moments(x)
        factor = self._factor()
        with torch.no_grad():
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), factor)
            self.running_covariance.lerp_(rows.detach().to(self.running_covariance.dtype), factor)
        return y

    def _by_batch(self, x: Tensor) -> Tensor:
        return self._by_moments(x)[0]

    def _by_moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(y, mean, covariances as rows) of a batch, all of them differentiable."""
        with torch.autocast(x.device.type, enabled=False):
            values = _by_channel(x)
            mean = values.mean(1)
            centered = values - mean[:, None]
            blocks = [part @ part.transpose(1, 2) / values.shape[1] for part in self.split(centered, 0)]
            matrices = [newton(block, self.eps, self.iterations) for block in blocks]
            return self._shaped(self._whitened(centered, matrices), x), mean, self.join(blocks)

    def _whitened(self, centered: Tensor, matrices: list[Tensor]) -> Tensor:
        parts = zip(matrices, self.split(centered, 0), strict=True)
        return torch.cat([(matrix.to(part.dtype) @ part).flatten(0, 1) for matrix, part in parts])

    def _shaped(self, values: Tensor, x: Tensor) -> Tensor:
        """gamma and beta applied to (C, values), in the shape of x."""
        if self.gamma is not None:
            values = values * self.gamma[:, None]
        if self.beta is not None:
            values = values + self.beta[:, None]
        return values.view(x.shape[1], len(x), *x.shape[2:]).transpose(0, 1).contiguous()


def newton(covariance: Tensor, eps: float, iterations: int) -> Tensor:
    """About (covariance + eps·I)^(−1/2), for a stack of symmetric matrices; differentiable.

    The matrix S, divided by its trace, starts P ← (3P − P³S)/2 from P = I (Huang et al. 2019, equations
    4 to 6). So written, rounding grows until it overflows where S is nearly singular; with Q = PS beside P
    (Denman & Beavers 1976, in Newton–Schulz form) the same steps are stable.
    """
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    covariance = covariance + eps * identity
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    product = covariance / trace
    root = step = 1.5 * identity - 0.5 * product  # the first step, from P = I
    for _ in range(iterations - 1):
        product = product @ step
        step = 1.5 * identity - 0.5 * (root @ product)
        root = step @ root
    return root * trace.rsqrt()


def _by_channel(x: Tensor) -> Tensor:
    """(N, C, *spatial) → (C, N·positions), float32 at least: a covariance of bfloat16 values has no digits left."""
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    return wide.transpose(0, 1).flatten(1)
