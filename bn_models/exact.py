"""Batch norm of many values a channel where torch's CPU kernel would add them up one after another in float32.

For vectors and for channels-last maps that kernel keeps one running sum a channel: over 50,000 values
(64 maps of 28×28) its variance is off by 1e-5, and with it outputs and gradients; a sum of gradients
of one sign by 1e-5 too. Here the kernel gets the same memory as many more channels of few values each,
runs, and float64 merges their moments (Chan, Golub & LeVeque 1979) and their sums. What is done value by
value sees the same wide rows, in half the time that rows of few channels take. What is one number a
channel is numpy's, whose operations cost a third of torch's at that size.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

Channels = NDArray[np.float64]
"""One number a channel, (C,)."""

LONG_SUM = 128  # values a channel; up to here one running sum is as good
SHORTEST_RUN, LONGEST_RUN = 64, 512  # with a mean far from 0, longer runs lose digits
WIDE = 2048  # numbers; more of them side by side, with what is kept for each, leave a core's first cache
UNSURE = 1e-9  # a variance below this share of the mean's square may be nothing but the rounding of a run's mean


def unwarned() -> np.errstate:
    """No warnings of numpy's: what is not finite shows in the loss. Once for a whole pass, for it costs 5 µs."""
    return np.errstate(all="ignore")


class Moments(NamedTuple):
    """Of `n` values a channel: mean, biased variance, and 1 / sqrt(variance + eps).

    `columns` are the means again, for each piece one tensor that fits its `wide` rows.
    """

    mean: Channels
    variance: Channels
    inverse: Channels
    n: int
    columns: tuple[Tensor, ...]


class Piece(NamedTuple):
    """Of every channel the values from number `start` on, as `runs` runs of `run`; each takes every `runs`-th value."""

    start: int
    run: int
    runs: int

    def wide(self, x: Tensor) -> Tensor:
        """(run, runs · C): the memory of x, which `has_long_sums`, or has its layout."""
        width = self.runs * x.shape[1]
        return x.as_strided((self.run, width), (width, 1), x.storage_offset() + self.start * x.shape[1])

    def repeat(self, *values: NDArray[np.floating[Any]]) -> tuple[Tensor, ...]:
        """Of each, (runs · C) in float32: for each column of `wide` the number of its channel."""
        repeated = np.empty((len(values), self.runs, len(values[0])), np.float32)
        for position, one in enumerate(values):
            repeated[position] = one
        return torch.from_numpy(repeated.reshape(len(values), -1)).unbind()

    def rows(self, columns: Tensor) -> NDArray[np.float32]:
        """(runs, C), of what the kernel gives for each column of `wide`."""
        found: NDArray[np.float32] = columns.numpy().reshape(self.runs, -1)
        return found


@cache
def pieces(values: int, channels: int) -> tuple[Piece, ...]:
    """How `values` numbers a channel are cut into runs: of one length, if there is one that divides them.

    Short runs, or up to LONGEST_RUN where all the runs are wide together.
    """
    dividing = [run for run in range(SHORTEST_RUN, LONGEST_RUN + 1) if values % run == 0]
    fitting = [run for run in dividing if values // run * channels <= WIDE]
    if dividing:
        run = fitting[0] if fitting else dividing[-1]
        return (Piece(0, run, values // run),)
    run = LONG_SUM
    while 2 * run <= min(values, LONGEST_RUN) and values // run * channels > WIDE:
        run *= 2
    runs, rest = divmod(values, run)
    return Piece(0, run, runs), Piece(runs * run, rest, 1)


def has_long_sums(x: Tensor) -> bool:
    """Is x (N, C, *spatial) one that torch's kernel would add up value by value, and too many of them?"""
    if x.dtype != torch.float32 or not x.is_cpu or torch.compiler.is_compiling():
        return False  # what inductor writes adds up in another way
    if x.numel() <= LONG_SUM * x.shape[1]:
        return False
    if x.dim() == 2 or x.shape[2:] == (1, 1):  # maps of one pixel are of both formats, and added up as vectors are
        return x.is_contiguous()
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def batch_norm(x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float) -> tuple[Tensor, Moments]:
    """y of Algorithm 1 in the layout of x, differentiable by x, gamma and beta; and the moments of x."""
    result: tuple[Tensor, Moments] = _Exact.apply(x, gamma, beta, eps)  # type: ignore[no-untyped-call]
    return result


def normalized(x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float) -> tuple[Tensor, Moments]:
    """`batch_norm` outside of autograd, for callers that are `unwarned`; none of the three requires a gradient."""
    y = torch.empty_like(x)
    n = x.numel() // x.shape[1]
    parts, columns = pieces(n, x.shape[1]), []
    mean, variance, constant = _moments(x, parts)
    inverse = 1.0 / np.sqrt(variance + eps)
    # Rounded here, so that the shift fits what the values are multiplied with.
    scale = (inverse if gamma is None else inverse * gamma.numpy()).astype(np.float32)
    if constant is not None:
        scale[constant] = 0.0  # whose values are all the mean, to the bit
    shift = -scale * mean if beta is None else beta.numpy() - scale * mean
    for piece in parts:
        scales, shifts, means = piece.repeat(scale, shift, mean)
        torch.addcmul(shifts, piece.wide(x), scales, out=piece.wide(y))
        columns.append(means)
    return y, Moments(mean, variance, inverse, n, tuple(columns))


def derivatives(
    gradient: Tensor, x: Tensor, gamma: Tensor | None, moments: Moments, learns_below: bool, over: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """By x, float64 by gamma and by beta (Ioffe & Szegedy 2015, section 3), for callers that are `unwarned`.

    With n values a channel, x̂ the normalized ones and g the gradient: by beta Σ g, by gamma Σ g·x̂, by x
    gamma/sqrt(variance + eps) · (g − Σg/n − x̂·Σ(g·x̂)/n), which means nothing unless something `learns_below`.
    `over`: it may be written over the gradient.
    """
    given = gradient
    gradient = gradient.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)
    parts = pieces(moments.n, x.shape[1])
    by_x = gradient if over or gradient is not given or not learns_below else torch.empty_like(gradient)
    by_gamma, by_beta = _sums(gradient, x, moments, parts)
    if learns_below:
        factor = moments.inverse if gamma is None else moments.inverse * gamma.numpy()
        share = factor * (-1.0 / moments.n)
        slope = (share * moments.inverse * by_gamma).astype(np.float32)
        constant = share * by_beta - slope * moments.mean
        for piece in parts:
            factors, slopes, constants = piece.repeat(factor, slope, constant)
            part = piece.wide(by_x)
            torch.addcmul(constants, piece.wide(gradient), factors, out=part)
            part.addcmul_(piece.wide(x), slopes)
    return by_x, torch.from_numpy(by_gamma), torch.from_numpy(by_beta)


def move(running_mean: Tensor, running_var: Tensor, moments: Moments, factor: float) -> None:
    """The running average takes in the moments of a batch, its variance unbiased; for callers that are `unwarned`."""
    unbiased = moments.variance * (moments.n / (moments.n - 1))
    running_mean.lerp_(torch.from_numpy(moments.mean.astype(np.float32)), factor)
    running_var.lerp_(torch.from_numpy(unbiased.astype(np.float32)), factor)


def moments(x: Tensor) -> tuple[Channels, Channels]:
    """Mean and biased variance of each channel."""
    with unwarned():
        mean, variance, _ = _moments(x, pieces(x.numel() // x.shape[1], x.shape[1]))
    return mean, variance


def _moments(x: Tensor, parts: tuple[Piece, ...]) -> tuple[Channels, Channels, NDArray[np.bool_] | None]:
    """Mean and variance, and which channels have one value only, if there are any."""
    mean, variance = _of_piece(parts[0], x)
    seen = parts[0].run * parts[0].runs
    for piece in parts[1:]:
        seen += piece.run * piece.runs
        share = piece.run * piece.runs / seen
        its_mean, its_variance = _of_piece(piece, x)
        difference = its_mean - mean
        mean = mean + share * difference
        variance = variance + share * (its_variance - variance + (1.0 - share) * difference * difference)
    unsure = variance <= UNSURE * mean * mean
    if not np.count_nonzero(unsure):  # a fifth of the time of `any`
        return mean, variance, None
    _measure_again(x, unsure & (variance > 0.0), mean, variance)
    return mean, variance, variance == 0.0


def _of_piece(piece: Piece, x: Tensor) -> tuple[Channels, Channels]:
    """Mean and biased variance of its runs together."""
    means, variances = torch.batch_norm_update_stats(piece.wide(x), None, None, 0.0)
    rows = piece.rows(means)
    mean = _mean(rows)
    between = rows - mean
    between *= between
    between += piece.rows(variances)
    return mean, _mean(between)


def _mean(rows: NDArray[Any]) -> Channels:
    sums: Channels = np.add.reduce(rows, 0, np.float64)
    sums /= len(rows)
    return sums


def _measure_again(x: Tensor, chosen: NDArray[np.bool_], mean: Channels, variance: Channels) -> None:
    """In float64 value by value, which leaves a channel of one value that mean, and no variance."""
    values = x[:, torch.from_numpy(chosen)].double()
    if len(values[0]):
        axes = [axis for axis in range(x.dim()) if axis != 1]
        variance[chosen], mean[chosen] = (one.numpy() for one in torch.var_mean(values, dim=axes, correction=0))


def _sums(gradient: Tensor, x: Tensor, moments: Moments, parts: tuple[Piece, ...]) -> tuple[Channels, Channels]:
    """Σ g·x̂ and Σ g of each channel."""
    found = [_of_columns(piece, gradient, x, means) for piece, means in zip(parts, moments.columns, strict=True)]
    by_gamma, by_beta = found[0]
    for products, sums in found[1:]:
        by_gamma, by_beta = by_gamma + products, by_beta + sums
    return by_gamma * moments.inverse, by_beta


def _of_columns(piece: Piece, gradient: Tensor, x: Tensor, means: Tensor) -> tuple[Channels, Channels]:
    """Σ g·(x − mean) and Σ g of each channel, over a piece."""
    ones = _ones(len(means))
    _, products, sums = torch.ops.aten.native_batch_norm_backward.default(
        piece.wide(gradient), piece.wide(x), None, None, None, means, ones, True, 0.0, [False, True, True]
    )
    return np.add.reduce(piece.rows(products), 0, np.float64), np.add.reduce(piece.rows(sums), 0, np.float64)


@cache
def _ones(width: int) -> Tensor:
    return torch.ones(width)


class _Exact(torch.autograd.Function):
    """No gradient flows through the moments, which are given for the running average."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float) -> tuple[Tensor, Moments]:
        gamma, beta = (None if one is None else one.detach() for one in (gamma, beta))
        with unwarned():
            y, moments = normalized(x, gamma, beta, eps)
        ctx.save_for_backward(x, gamma)
        ctx.moments, ctx.beta = moments, beta is not None
        return y, moments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, gamma = ctx.saved_tensors
        with unwarned():
            by_x, by_gamma, by_beta = derivatives(
                gradients[0], x, gamma, ctx.moments, ctx.needs_input_grad[0], over=False
            )
        return (
            by_x if ctx.needs_input_grad[0] else None,
            None if gamma is None else by_gamma.float(),
            by_beta.float() if ctx.beta else None,
            None,
        )
