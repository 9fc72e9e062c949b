"""Independent float64 references in numpy, and the cases that hypothesis draws to compare with them."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

UNIT = 6e-8  # of float32


@dataclass(frozen=True)
class Case:
    """A float32 input (N, C, *spatial), the gradient of its output, and the parameters."""

    x: np.ndarray
    gradient: np.ndarray
    gamma: np.ndarray | None
    beta: np.ndarray | None
    eps: float = 1e-5

    @property
    def affine(self):
        return {(True, True): True, (True, False): "gamma", (False, True): "beta", (False, False): False}[
            self.gamma is not None, self.beta is not None
        ]


@st.composite
def cases(draw):
    rows = draw(st.sampled_from([2, 3, 8, 60, 257, 1024, 4096]))
    channels = draw(st.integers(1, 4))
    spatial = draw(st.sampled_from([(), (1, 1), (3, 5), (8, 8)])) if rows <= 257 else ()
    mean = draw(st.sampled_from([0.0, -1.0, 30.0, 1e3, -1e4, 1e4]))
    deviation = draw(st.sampled_from([0.1, 1.0, 20.0]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (rows, channels, *spatial)
    x = random.normal(mean, deviation, shape).astype(np.float32)
    gamma, beta = (
        random.normal(1, 0.5, channels).astype(np.float32) if draw(st.booleans()) else None for _ in range(2)
    )
    return Case(x, random.normal(size=shape).astype(np.float32), gamma, beta)


def along(values, x):
    return values.reshape(1, -1, *[1] * (x.ndim - 2))


def axes_of(x):
    return (0, *range(2, x.ndim))


@dataclass(frozen=True)
class Reference:
    """Algorithm 1 and its gradients, in float64."""

    mean: np.ndarray
    variance: np.ndarray
    y: np.ndarray
    by_x: np.ndarray
    by_gamma: np.ndarray
    by_beta: np.ndarray


def batch_norm(case):
    x, g = case.x.astype(np.float64), case.gradient.astype(np.float64)
    axes = axes_of(x)
    mean, variance = x.mean(axes), x.var(axes)
    gamma = np.ones_like(mean) if case.gamma is None else case.gamma.astype(np.float64)
    beta = np.zeros_like(mean) if case.beta is None else case.beta.astype(np.float64)
    scale = 1.0 / np.sqrt(variance + case.eps)
    normalized = (x - along(mean, x)) * along(scale, x)
    by_beta, by_gamma = g.sum(axes), (g * normalized).sum(axes)
    n = x.size // x.shape[1]
    by_x = along(gamma * scale, x) * (g - along(by_beta, x) / n - normalized * along(by_gamma, x) / n)
    return Reference(mean, variance, along(gamma, x) * normalized + along(beta, x), by_x, by_gamma, by_beta)


def grouped_covariance(x, size):
    """(C, g) as whitening layers store it: biased, row i against the channels of its own group."""
    channels = x.shape[1]
    rows = np.moveaxis(x.astype(np.float64), 1, -1).reshape(-1, channels)
    full = np.cov(rows.T, bias=True).reshape(channels, channels)
    width = min(size, channels)
    stored = np.zeros((channels, width))
    for channel in range(channels):
        start = channel // width * width
        end = min(start + width, channels)
        stored[channel, : end - start] = full[channel, start:end]
    return stored


def newton(covariance, eps, iterations):
    """(covariance + eps·I)^(−1/2) as Huang et al. (2019) iterate it, written for each eigenvalue by itself.

    P commutes with the matrix, so that p ← (3p − p³ · λ/trace)/2 from p = 1 is what each eigenvalue goes through.
    """
    values, vectors = np.linalg.eigh(covariance + eps * np.eye(len(covariance)))
    roots = np.ones_like(values)
    for _ in range(iterations):
        roots = 0.5 * (3 * roots - roots**3 * values / values.sum())
    return vectors @ np.diag(roots) @ vectors.T / np.sqrt(values.sum())


def whitening_matrix(stored, eps, iterations):
    """The block-diagonal (C, C) out of covariances stored as rows."""
    channels, width = stored.shape
    matrix = np.zeros((channels, channels))
    for start in range(0, channels, width):
        end = min(start + width, channels)
        matrix[start:end, start:end] = newton(stored[start:end, : end - start], eps, iterations)
    return matrix
