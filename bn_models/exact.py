"""Batch norm of many values a channel where torch's CPU kernel would add them up one after another in float32.

For vectors and for channels-last maps that kernel keeps one running sum a channel: over 50,000 values
(64 maps of 28×28) its variance is off by 1e-5, and with it outputs and gradients; a sum of gradients
of one sign by 1e-5 too. Here the kernel gets the same memory as many more channels of few values each,
runs, and float64 merges their moments (Chan, Golub & LeVeque 1979) and their sums.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LONG_SUM = 128  # values a channel; up to here one running sum is as good
LONGEST_RUN = 512  # of the moments: with a mean far from 0, longer runs lose digits
LONGEST_RUN_OF_GRADIENTS = 1024
WIDE = 2048  # numbers; more of them side by side, with what is kept for each, leave a core's first cache


def has_long_sums(x: Tensor) -> bool:
    """Is x (N, C, *spatial) one that torch's kernel would add up value by value, and too many of them?"""
    if x.dtype != torch.float32 or not x.is_cpu or torch.compiler.is_compiling():
        return False  # what inductor writes adds up in another way
    if x.numel() <= LONG_SUM * x.shape[1]:
        return False
    if x.dim() == 2 or x.shape[2:] == (1, 1):  # maps of one pixel are of both formats, and added up as vectors are
        return x.is_contiguous()
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


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
    """By x, gamma and beta (Ioffe & Szegedy 2015, section 3); `moments_of_x` are the last three of `normalized`.

    With n values a channel, x̂ the normalized ones and g the gradient: by beta Σ g, by gamma Σ g·x̂, by x
    gamma/sqrt(variance + eps) · (g − Σg/n − x̂·Σ(g·x̂)/n). Of the three `mask` asks for some; the others mean nothing.
    """
    mean, variance, inverse = moments_of_x
    gradient = gradient.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)
    by_gamma, by_beta = _sums(gradient, x, mean, inverse)
    by_x = gradient
    if mask[0]:
        factor = inverse if gamma is None else inverse * gamma
        share = -factor.double() / (x.numel() // x.shape[1])
        slope, constant = (share * by_gamma).float(), (share * by_beta).float()
        by_x, _, _ = torch.native_batch_norm(x, slope, constant, mean, variance, False, 0.0, eps)
        by_x.addcmul_(gradient, factor.view(-1, *[1] * (x.dim() - 2)))
    return by_x, by_gamma.float(), by_beta.float()


@torch.no_grad()
def move(running_mean: Tensor, running_var: Tensor, mean: Tensor, variance: Tensor, n: int, factor: float) -> None:
    """The running average takes in the moments of a batch of `n` values a channel, its variance unbiased."""
    running_mean.lerp_(mean, factor)
    running_var.lerp_(variance * (n / (n - 1)), factor)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, float64 (C,)."""
    channels = x.shape[1]
    values = _rows(x)
    run = _run(len(values), channels, LONGEST_RUN)
    runs = len(values) // run
    means, variances = _of_columns(values[: runs * run].view(run, runs * channels))
    means, variances = means.view(runs, channels), variances.view(runs, channels)
    mean = means.mean(0)
    variance = variances.mean(0) + (means - mean).square_().mean(0)
    if runs * run == len(values):
        return mean, variance
    share = 1.0 - runs * run / len(values)
    last_mean, last_variance = _of_columns(values[runs * run :])
    difference = last_mean - mean
    variance = variance.lerp(last_variance, share) + difference.square() * (share * (1.0 - share))
    return mean.add_(difference, alpha=share), variance


def _of_columns(values: Tensor) -> tuple[Tensor, Tensor]:
    mean, variance = torch.batch_norm_update_stats(values, None, None, 0.0)
    return mean.double(), variance.double()


def _sums(gradient: Tensor, x: Tensor, mean: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Σ g·x̂ and Σ g of each channel, float64 (C,)."""
    channels = x.shape[1]
    gradients, values = _rows(gradient), _rows(x)
    run = _run(len(values), channels, LONGEST_RUN_OF_GRADIENTS)
    full = len(values) // run * run
    by_gamma, by_beta = _sums_of_runs(gradients[:full], values[:full], run, mean, inverse)
    if full < len(values):
        rest = _sums_of_runs(gradients[full:], values[full:], len(values) - full, mean, inverse)
        by_gamma, by_beta = by_gamma + rest[0], by_beta + rest[1]
    return by_gamma, by_beta


def _sums_of_runs(gradients: Tensor, values: Tensor, run: int, mean: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows (runs · run, C), whose runs lie side by side for the kernel."""
    runs, channels = len(values) // run, len(mean)
    gradients, values = (part.view(run, runs * channels) for part in (gradients, values))
    mean, inverse = mean.repeat(runs), inverse.repeat(runs)
    _, by_gamma, by_beta = torch.ops.aten.native_batch_norm_backward.default(
        gradients, values, None, None, None, mean, inverse, True, 0.0, [False, True, True]
    )
    by_gamma, by_beta = (sums.view(runs, channels).sum(0, dtype=torch.float64) for sums in (by_gamma, by_beta))
    return by_gamma, by_beta


def _rows(x: Tensor) -> Tensor:
    """(N, C) or (N, C, H, W) as (values a channel, C): a view, if x has long sums."""
    return x if x.dim() == 2 else x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _run(values: int, channels: int, longest: int) -> int:
    """How many values are added one after another: few, or up to `longest` where all the runs are wide together."""
    run = LONG_SUM
    while 2 * run <= min(values, longest) and values // run * channels > WIDE:
        run *= 2
    return run


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
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, gamma, *moments_of_x = ctx.saved_tensors
        mask = [ctx.needs_input_grad[0], gamma is not None, ctx.beta]
        found = derivatives(gradients[0], x, gamma, tuple(moments_of_x), ctx.eps, mask)
        by_x, by_gamma, by_beta = (one if asked else None for one, asked in zip(found, mask, strict=True))
        return by_x, by_gamma, by_beta, None
