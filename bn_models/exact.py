"""Batch norm of many values a channel where torch's CPU kernel would add them up one after another in float32.

For vectors and for channels-last maps that kernel keeps one running sum a channel: over 50,000 values
(64 maps of 28×28) its variance is off by 1e-5, and with it outputs and gradients. Here the kernel
gets the same memory as many more channels of few values each, and float64 merges their moments
(Chan, Golub & LeVeque 1979). It reads and writes memory as often as before.
"""

from typing import Any

import torch
from torch import Tensor

LONG_SUM = 128  # values a channel; up to here one running sum is as good
RUN = 128  # values that are added one after another


def has_long_sums(x: Tensor) -> bool:
    """Is x (N, C, *spatial) one that torch's kernel would add up value by value, and too many of them?"""
    if x.dtype != torch.float32 or not x.is_cpu or torch.compiler.is_compiling():
        return False  # what inductor writes adds up in another way
    if x.dim() == 2:
        return x.shape[0] > LONG_SUM and x.is_contiguous()
    if x.dim() != 4 or x.shape[0] * x.shape[2] * x.shape[3] <= LONG_SUM:
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def batch_norm(x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, biased variance) of Algorithm 1, in the layout of x; y is differentiable by x, gamma and beta."""
    result: tuple[Tensor, Tensor, Tensor] = _Exact.apply(x, gamma, beta, eps)  # type: ignore[no-untyped-call]
    return result


def normalized(x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float) -> tuple[Tensor, ...]:
    """(y, mean, biased variance, 1 / sqrt(variance + eps)), outside of autograd."""
    exact_mean, exact_variance = moments(x)
    mean, variance = exact_mean.float(), exact_variance.float()
    y, _, _ = torch.native_batch_norm(x, gamma, beta, mean, variance, False, 0.0, eps)
    return y, mean, variance, (exact_variance + eps).rsqrt_().float()


def derivatives(
    gradient: Tensor, x: Tensor, gamma: Tensor | None, moments_of_x: tuple[Tensor, ...], eps: float, mask: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """By x, gamma and beta, those that `mask` asks for; `moments_of_x` are the last three of `normalized`."""
    mean, variance, inverse = moments_of_x
    result: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward.default(
        gradient, x, gamma, mean, variance, mean, inverse, True, eps, mask
    )
    return result


@torch.no_grad()
def move(running_mean: Tensor, running_var: Tensor, mean: Tensor, variance: Tensor, n: int, factor: float) -> None:
    """The running average takes in the moments of a batch of `n` values a channel, its variance unbiased."""
    running_mean.lerp_(mean, factor)
    running_var.lerp_(variance * (n / (n - 1)), factor)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, float64 (C,)."""
    channels = x.shape[1]
    values = (x if x.dim() == 2 else x.permute(0, 2, 3, 1)).reshape(-1, channels)
    runs = len(values) // RUN
    means, variances = _of_columns(values[: runs * RUN].view(RUN, runs * channels))
    means, variances = means.view(runs, channels), variances.view(runs, channels)
    mean = means.mean(0)
    variance = variances.mean(0) + (means - mean).square_().mean(0)
    if runs * RUN == len(values):
        return mean, variance
    share = 1.0 - runs * RUN / len(values)
    last_mean, last_variance = _of_columns(values[runs * RUN :])
    difference = last_mean - mean
    variance = variance.lerp(last_variance, share) + difference.square() * (share * (1.0 - share))
    return mean.add_(difference, alpha=share), variance


def _of_columns(values: Tensor) -> tuple[Tensor, Tensor]:
    mean, variance = torch.batch_norm_update_stats(values, None, None, 0.0)
    return mean.double(), variance.double()


class _Exact(torch.autograd.Function):
    """No gradient flows through mean and variance, which are given for the running average."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, variance, inverse = normalized(x, gamma, beta, eps)
        ctx.save_for_backward(x, gamma, mean, variance, inverse)
        ctx.beta, ctx.eps = beta is not None, eps
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, gamma, *moments_of_x = ctx.saved_tensors
        mask = [ctx.needs_input_grad[0], gamma is not None, ctx.beta]
        found = derivatives(gradients[0], x, gamma, tuple(moments_of_x), ctx.eps, mask)
        by_x, by_gamma, by_beta = (one if asked else None for one, asked in zip(found, mask, strict=True))
        return by_x, by_gamma, by_beta, None
