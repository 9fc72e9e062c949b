import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.estimators import measured
from bn_models.moments import BatchMean, ChanMerge, GroupMoments, normalize_groups
from bn_models.normalization import BatchNorm
from core.spec import BatchNormSpec


def moments_of(*batches):
    """Of equally long (n, C) float64 batches."""
    stacked = torch.from_numpy(np.stack(batches))
    mean = stacked.mean(1)
    return GroupMoments(mean, (stacked - mean[:, None]).square().sum(1), stacked.shape[1])


def merged(batches):
    merge = ChanMerge()
    for batch in batches:
        merge.add(moments_of(batch))
    return merge.result()


@settings(deadline=None, max_examples=60)
@given(
    cuts=st.lists(st.integers(1, 99), unique=True, max_size=12),
    mean=st.sampled_from([0.0, -3.0, 1e3, 1e6]),
    deviation=st.sampled_from([1e-3, 1.0, 50.0]),
)
def test_merged_moments_equal_those_of_all_data_for_every_split(cuts, mean, deviation):
    data = np.random.default_rng(len(cuts)).normal(mean, deviation, (100, 3))

    merged_mean, variance, n = merged(np.split(data, sorted(cuts)))

    assert n == 100
    np.testing.assert_allclose(merged_mean, data.mean(0), rtol=1e-14, atol=1e-13)
    np.testing.assert_allclose(variance, data.var(0), rtol=1e-7)


def test_many_groups_at_once_equal_one_after_the_other():
    batches = np.random.default_rng(0).normal(5, 2, (6, 10, 3))
    at_once = ChanMerge()
    at_once.add(moments_of(*batches[:2]))
    at_once.add(moments_of(*batches[2:]))

    for one, other in zip(at_once.result(), merged(batches), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)


def test_the_merge_is_right_where_float32_sums_of_squares_cancel():
    # Mean 1000 and deviation 0.1: E[x²] − E[x]² in float32 subtracts two numbers near 1e6.
    data = np.random.default_rng(0).normal(1000, 0.1, (200, 256, 1))
    single = data.astype(np.float32)
    cancelled = float((single**2).mean(dtype=np.float32) - single.mean(dtype=np.float32) ** 2)

    _, variance, _ = merged(data)

    assert float(variance) == pytest.approx(data.var(), rel=1e-9)
    assert abs(cancelled - 0.01) > 10 * abs(float(variance) - 0.01)


def test_batch_mean_is_the_papers_formula():
    # Algorithm 2, line 10: E[x] = E_B[μ_B], Var[x] = m/(m−1) · E_B[σ²_B].
    batches = np.random.default_rng(0).normal(5, 2, (6, 10, 3))
    total = BatchMean()
    total.add(moments_of(*batches[:4]))
    total.add(moments_of(*batches[4:]))

    mean, variance, n = total.result()

    assert n == 60
    np.testing.assert_allclose(mean, np.mean([batch.mean(0) for batch in batches], axis=0), rtol=1e-14)
    np.testing.assert_allclose(variance, 10 / 9 * np.mean([batch.var(0) for batch in batches], axis=0), rtol=1e-13)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 3, 7, 6), (5, 4, 700, 11, 9)])
def test_groups_are_normalized_each_by_its_own_moments(shape, affine):
    _samples, groups, channels, *spatial = shape
    layer = BatchNorm(channels, BatchNormSpec(affine=affine)).double()
    if affine:
        layer.gamma.data.normal_()
        layer.beta.data.normal_()
    x = torch.randn(shape, dtype=torch.float64) * 2 + torch.arange(groups).view(1, -1, *[1] * (len(shape) - 2))

    with torch.no_grad():
        (moments,), y = normalize_groups(layer, x.reshape(-1, channels, *spatial), groups)

        for group in range(groups):
            axes = [axis for axis in range(len(shape) - 1) if axis != 1]
            torch.testing.assert_close(y.view(shape)[:, group], layer.normalize_by_batch(x[:, group]))
            torch.testing.assert_close(moments.mean[group], x[:, group].mean(axes))
            torch.testing.assert_close(moments.squares[group] / moments.n, x[:, group].var(axes, correction=0))


def test_pooling_finds_the_variance_between_images_that_a_mean_of_batch_variances_misses():
    # Deviation 1 between images and 0.3 within, batches of 2: half of the variance lies between the two.
    errors = {name: variance for name, (_, variance) in measured(2000)["offsets, batch 2"].items()}

    assert errors["pooled (and pooled_sequential)"] < 0.01
    assert errors["swa_utils update_bn"] > 0.4
    assert errors["algorithm_2"] > 0.4


def test_pooling_holds_a_deviation_that_float32_sums_of_squares_lose():
    errors = {name: variance for name, (_, variance) in measured(500)["mean 1000, sd 0.1"].items()}

    assert errors["pooled (and pooled_sequential)"] < 1e-6
    assert errors["fvcore update_bn_stats"] > 1.0
