"""Batch norm and its population statistics against float64 in numpy, on cases that hypothesis draws."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from bn_models import exact
from bn_models.moments import BatchMean, ChanMerge, moments_of, normalize_groups
from bn_models.normalization import BatchNorm
from core.spec.normalization import BatchOptions
from tests.bn_models.references import UNIT, Case, along, axes_of, batch_norm, cases

FORMATS = [torch.contiguous_format, torch.channels_last]


def layer_of(case: Case, **options) -> BatchNorm:
    layer = BatchNorm(case.x.shape[1], BatchOptions(affine=case.affine, eps=case.eps, **options))
    for parameter, value in ((layer.gamma, case.gamma), (layer.beta, case.beta)):
        if parameter is not None:
            parameter.data = torch.from_numpy(value)
    return layer


def tensor(values, layout=torch.contiguous_format):
    made = torch.from_numpy(values)
    return made.contiguous(memory_format=layout) if made.dim() == 4 else made


def assert_within(found, expected, scale, case, factor=8):
    """|error| ≤ factor · u · (1 + mean/deviation) · scale, channel by channel."""
    reference = batch_norm(case)
    bound = factor * UNIT * (1 + np.abs(reference.mean) / np.sqrt(reference.variance + case.eps))
    axes = axes_of(case.x) if found.ndim > 1 else ()
    error = np.abs(found.astype(np.float64) - expected).max(axes)
    assert np.all(error <= bound * scale), (error / (bound * scale)).max()


def check_forward_and_gradients(case: Case) -> None:
    reference = batch_norm(case)
    deviation = np.sqrt(reference.variance + case.eps)
    normalized = (case.x.astype(np.float64) - along(reference.mean, case.x)) / along(deviation, case.x)
    gamma = np.ones_like(deviation) if case.gamma is None else np.abs(case.gamma)
    beta = 0.0 if case.beta is None else np.abs(case.beta)
    axes = axes_of(case.x)
    for layout in FORMATS:
        layer, x = layer_of(case), tensor(case.x, layout).requires_grad_()

        y = layer(x)
        y.backward(tensor(case.gradient, layout))

        assert_within(y.detach().numpy(), reference.y, gamma * np.abs(normalized).max(axes) + beta, case)
        assert_within(x.grad.numpy(), reference.by_x, gamma / deviation * np.abs(case.gradient).max(axes), case)
        if layer.gamma is not None:
            scale = np.abs(case.gradient * normalized).sum(axes)
            assert_within(layer.gamma.grad.numpy(), reference.by_gamma, scale, case)
        if layer.beta is not None:
            assert_within(layer.beta.grad.numpy(), reference.by_beta, np.abs(case.gradient).sum(axes), case)


def check_population(case: Case) -> None:
    """Given inputs, split otherwise each time: moments of all samples."""
    reference = batch_norm(case)
    for layout in FORMATS:
        x, layer = tensor(case.x, layout), layer_of(case)
        for size in {2 if len(x) < 100 else 60, 7 if len(x) < 300 else 500, len(x)}:
            merge = ChanMerge()
            for part in x.split(size):
                merge.add(moments_of(layer, part))
            mean, variance, n = merge.result()

            assert n == x.numel() // x.shape[1]
            deviation = np.sqrt(reference.variance)
            assert np.all(np.abs(mean.numpy() - reference.mean) <= 1e-6 * np.maximum(deviation, np.abs(reference.mean)))
            np.testing.assert_allclose(variance, reference.variance, rtol=1e-6, atol=1e-30)


@settings(deadline=None, max_examples=25)
@given(cases())
def test_forward_and_gradients_are_those_of_float64_to_its_rounding(case):
    check_forward_and_gradients(case)


@settings(deadline=None, max_examples=25)
@given(cases())
def test_population_statistics_are_those_of_float64_to_a_millionth_however_inputs_are_split(case):
    check_population(case)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_forward_and_gradients, check_population])
def test_both_hold_on_hundreds_of_cases(check: Callable[[Case], None]):
    settings(deadline=None, max_examples=400)(given(cases())(check))()


@pytest.mark.parametrize("signs", ["of both signs", "of one sign"])
@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.1), (30.0, 1.0), (1e4, 0.1)])
@pytest.mark.parametrize("shape", [(4096, 3), (5000, 3, 1, 1), (64, 3, 28, 28), (300, 40, 1, 7)])
def test_long_sums_stay_within_the_rounding_that_torchs_kernel_leaves(shape, mean, deviation, signs):
    random = np.random.default_rng(5)
    x, gradient = (random.normal(m, d, shape).astype(np.float32) for m, d in ((mean, deviation), (0, 1)))
    if signs == "of one sign":
        gradient = 1 + np.abs(gradient)
    assert exact.has_long_sums(tensor(x, torch.channels_last))

    check_forward_and_gradients(Case(x, gradient, np.linspace(0.5, 2, shape[1], dtype=np.float32), None))


@pytest.mark.parametrize("constant", [1.0, -0.1, 3.3e4, 0.0])
@pytest.mark.parametrize("shape", [(4096, 3), (1031, 3), (5000, 3, 1, 1), (64, 3, 28, 28)])
def test_a_channel_of_one_value_has_no_variance_and_is_normalized_to_beta(shape, constant):
    random = np.random.default_rng(5)
    x, gradient = (tensor(random.normal(size=shape).astype(np.float32), torch.channels_last) for _ in range(2))
    x[:, 1] = constant
    layer = BatchNorm(3, BatchOptions(initial_beta=0.7, momentum=1.0))

    y = layer(x.requires_grad_())
    y.backward(gradient)

    assert exact.has_long_sums(x)
    assert torch.equal(y[:, 1], torch.full_like(y[:, 1], 0.7))
    assert (layer.running_mean[1], layer.running_var[1]) == (torch.tensor(constant), 0.0)
    assert layer.gamma.grad[1] == 0.0
    expected = (gradient[:, 1].double() - gradient[:, 1].double().mean()) / 1e-5**0.5
    torch.testing.assert_close(x.grad[:, 1].double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("wrong", [float("inf"), float("nan"), 3e38])
def test_values_that_are_not_finite_spoil_their_channel_alone_and_warn_of_nothing(wrong):
    x = torch.randn(4096, 3, generator=torch.Generator().manual_seed(0))
    x[::7, 1] = wrong
    layer, whole = BatchNorm(3, BatchOptions()), BatchNorm(2, BatchOptions())
    found, expected = x.requires_grad_(), x.detach()[:, ::2].clone().requires_grad_()

    for module, values in ((layer, found), (whole, expected)):
        module(values).square().sum().backward()

    torch.testing.assert_close(found.grad[:, ::2], expected.grad)
    assert not torch.isfinite(layer.running_var[1])
    assert torch.isfinite(layer.running_var[::2]).all()


@settings(deadline=None, max_examples=15)
@given(cases())
def test_a_pass_over_many_batches_normalizes_each_by_its_own_moments(case):
    rows = len(case.x) // 2 * 2
    x = case.x[:rows]
    halves = [Case(x[group::2], x[group::2], case.gamma, case.beta) for group in range(2)]
    if rows < 4 and case.x.ndim == 2:
        return
    for layout in FORMATS:
        layer = layer_of(case)
        with torch.no_grad():
            (moments,), y = normalize_groups(layer, tensor(x, layout), 2)
        for group, half in enumerate(halves):
            reference = batch_norm(half)
            normalized = np.abs(half.x - along(reference.mean, x)) / along(np.sqrt(reference.variance + case.eps), x)
            gamma = 1.0 if case.gamma is None else np.abs(case.gamma)
            scale = gamma * normalized.max(axes_of(x)) + (0.0 if case.beta is None else np.abs(case.beta))
            np.testing.assert_allclose(moments.squares[group] / moments.n, reference.variance, rtol=1e-6, atol=1e-30)
            assert_within(y[group::2].numpy(), reference.y, scale + 1e-30, half)


@settings(deadline=None, max_examples=25)
@given(cases())
def test_algorithm_2_is_the_mean_over_batches_with_the_papers_factor(case):
    # Line 10: E[x] = E_B[μ_B], Var[x] = m/(m−1) · E_B[σ²_B], with m values a channel in each batch.
    size = 2 if len(case.x) < 60 else 60
    batches = [case.x[start : start + size] for start in range(0, len(case.x) - size + 1, size)]
    total, layer = BatchMean(), layer_of(case)
    for batch in batches:
        total.add(moments_of(layer, torch.from_numpy(batch)))

    mean, variance, n = total.result()

    references = [batch_norm(replace(case, x=batch, gradient=batch)) for batch in batches]
    m = batches[0].size // batches[0].shape[1]
    assert n == len(batches) * m
    expected = np.mean([one.mean for one in references], axis=0)
    scale = np.maximum(np.abs(expected), np.sqrt(np.mean([one.variance for one in references], axis=0)))
    assert np.all(np.abs(mean.numpy() - expected) <= 1e-6 * scale)
    np.testing.assert_allclose(variance, m / (m - 1) * np.mean([one.variance for one in references], axis=0), rtol=1e-6)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("shape", [(64, 9), (300, 9), (8, 9, 5, 5)])
def test_scaling_the_weights_scales_their_gradient_by_the_inverse_and_nothing_else(shape, layout):
    # Section 3.3: BN((aW)u) = BN(Wu), ∂BN((aW)u)/∂u = ∂BN(Wu)/∂u, ∂BN((aW)u)/∂(aW) = 1/a · ∂BN(Wu)/∂W; eps → 0.
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(shape, generator=generator).contiguous(memory_format=layout if len(shape) == 4 else FORMATS[0])
    weight = torch.randn(7, 9, *[3, 3] * (len(shape) == 4), generator=generator)
    product = torch.nn.functional.conv2d if len(shape) == 4 else torch.nn.functional.linear
    layer = BatchNorm(7, BatchOptions(eps=1e-12))
    results = []
    for factor in (1.0, 8.0, 1e3):
        inputs, scaled = u.clone().requires_grad_(), (factor * weight).requires_grad_()
        y = layer(product(inputs, scaled))
        by_u, by_weight = torch.autograd.grad((y**3).sum(), [inputs, scaled])
        results.append((y, by_u, factor * by_weight))

    for scaled in results[1:]:
        for one, other in zip(results[0], scaled, strict=True):
            assert float((one - other).detach().abs().max()) <= 2e-4 * float(one.detach().abs().max())
