import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bn_models.moments import BatchMean, ChanMerge, moments_of, normalize_by, normalize_groups
from bn_models.whitening import Whitening
from core.spec.normalization import WhiteningOptions
from tests.bn_models.references import along, grouped_covariance, newton, whitening_matrix


def mixed(rows, channels, spatial=(), mean=0.0, seed=0):
    """Correlated channels of unequal deviations, float32 (rows, channels, *spatial)."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, *spatial, channels)) @ random.normal(size=(channels, channels)) + mean
    return np.moveaxis(values, -1, 1).astype(np.float32)


def layer_of(channels, **options):
    return Whitening(channels, WhiteningOptions(**options))


def apply(matrix, x, mean):
    """matrix · (x − mean) over the channels, float64."""
    return np.moveaxis(np.tensordot(matrix, x.astype(np.float64) - along(mean, x), axes=(1, 1)), 0, 1)


def mean_of(x):
    return x.astype(np.float64).mean((0, *range(2, x.ndim)))


@settings(deadline=None, max_examples=20)
@given(
    rows=st.sampled_from([40, 300]),
    channels=st.integers(1, 9),
    spatial=st.sampled_from([(), (3, 4)]),
    size=st.integers(1, 5),
    mean=st.sampled_from([0.0, 5.0]),
    iterations=st.integers(1, 7),
)
def test_a_batch_is_whitened_by_newtons_iteration_on_each_group(rows, channels, spatial, size, mean, iterations):
    x = mixed(rows, channels, spatial, mean)
    layer = layer_of(channels, group_size=size, iterations=iterations, momentum=1.0, eps=1e-3, affine=False)

    y = layer(torch.from_numpy(x)).detach().numpy()

    covariance = grouped_covariance(x, size)
    expected = apply(whitening_matrix(covariance, 1e-3, iterations), x, mean_of(x))
    scale = np.abs(covariance).max()
    np.testing.assert_allclose(y, expected, atol=2e-4 * np.abs(expected).max())
    np.testing.assert_allclose(layer.running_covariance, covariance, atol=1e-5 * scale)
    np.testing.assert_allclose(layer.running_var, np.diag(np.cov(x.swapaxes(0, 1).reshape(channels, -1), bias=True))
                               if channels > 1 else covariance[:, 0], rtol=1e-4)  # fmt: skip


def test_converged_iterations_are_zca():
    # ZCA: U diag(1/sqrt(λ + eps)) Uᵀ of the covariance's eigenvectors; its outputs have the identity as covariance.
    x = mixed(500, 4, seed=3)
    covariance = grouped_covariance(x, 4)
    values, vectors = np.linalg.eigh(covariance + 1e-5 * np.eye(4))
    zca = vectors @ np.diag(values**-0.5) @ vectors.T
    layer = layer_of(4, iterations=40, affine=False).double()

    y = layer(torch.from_numpy(x).double()).numpy()

    np.testing.assert_allclose(newton(covariance, 1e-5, 40), zca, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(y, apply(zca, x, mean_of(x)), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(np.cov(y.T, bias=True), np.eye(4), atol=1e-4)


def test_groups_of_one_channel_are_batch_norm():
    x = torch.from_numpy(mixed(64, 3, (4, 4), mean=2.0)).double()
    layer = layer_of(3, group_size=1, iterations=1, affine=False).double()

    expected = torch.nn.functional.batch_norm(x, None, None, training=True)

    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_finite_differences():
    x = torch.from_numpy(mixed(9, 5, (2, 2))).double().requires_grad_()
    layer = layer_of(5, group_size=3, iterations=4, eps=1e-2).double()

    assert torch.autograd.gradcheck(lambda inputs: layer.normalize_by_batch(inputs), (x,), atol=1e-6)


def test_gamma_and_beta_come_after_the_matrix():
    x = torch.from_numpy(mixed(50, 4))
    plain, scaled = layer_of(4, affine=False), layer_of(4, initial_gamma=2.0, initial_beta=-0.5)

    torch.testing.assert_close(scaled(x), 2.0 * plain(x) - 0.5)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_the_running_average_mixes_covariances_as_it_mixes_means(momentum):
    layer = layer_of(5, group_size=2, momentum=momentum)
    mean, covariance = np.zeros(5), layer.running_covariance.numpy().astype(np.float64)
    for step in range(1, 4):
        x = mixed(30, 5, seed=step)
        layer(torch.from_numpy(x))
        weight = 1 / step if momentum is None else momentum
        mean = (1 - weight) * mean + weight * mean_of(x)
        covariance = (1 - weight) * covariance + weight * grouped_covariance(x, 2)

    np.testing.assert_allclose(layer.running_mean, mean, atol=1e-5)
    np.testing.assert_allclose(layer.running_covariance, covariance, atol=1e-5 * np.abs(covariance).max())


def test_in_evaluation_the_stored_covariance_makes_the_matrix():
    x = mixed(40, 5, (3, 3))
    layer = layer_of(5, group_size=3, momentum=1.0)
    layer(torch.from_numpy(mixed(60, 5, (3, 3), seed=9)))
    layer.eval()

    y = layer(torch.from_numpy(x)).detach().numpy()

    stored = layer.running_covariance.numpy().astype(np.float64)
    expected = apply(whitening_matrix(stored, 1e-5, 5), x, layer.running_mean.numpy().astype(np.float64))
    np.testing.assert_allclose(y, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("spatial", [(), (4, 4)])
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_population_covariance_is_exact_however_the_samples_are_split(spatial, mean):
    x = mixed(60, 7, spatial, mean)
    expected, layer = grouped_covariance(x, 3), layer_of(7, group_size=3)
    deviations = np.sqrt(np.abs(layer.variance_of(torch.from_numpy(expected)).numpy()))
    for size in (2, 7, 60):
        merge = ChanMerge(layer.outer)
        for part in torch.from_numpy(x).split(size):
            merge.add(moments_of(layer, part))
        found, covariance, n = merge.result()

        assert n == x.size // 7
        np.testing.assert_allclose(found, mean_of(x), rtol=1e-9, atol=1e-6 * deviations.max())
        assert np.all(np.abs(covariance.numpy() - expected) <= 1e-6 * deviations[:, None] * deviations.max())


def test_algorithm_2_gives_the_mean_covariance_of_batches_times_the_papers_factor():
    batches = [mixed(8, 4, seed=seed) for seed in range(5)]
    total, layer = BatchMean(), layer_of(4, group_size=2)
    for batch in batches:
        total.add(moments_of(layer, torch.from_numpy(batch)))

    _, covariance, _ = total.result()

    expected = 8 / 7 * np.mean([grouped_covariance(batch, 2) for batch in batches], axis=0)
    np.testing.assert_allclose(covariance, expected, rtol=1e-6, atol=1e-6)


def test_many_batches_at_once_are_whitened_each_by_itself():
    layer = layer_of(5, group_size=2).double()
    batches = [torch.from_numpy(mixed(12, 5, (2, 3), seed=seed)).double() for seed in range(3)]
    interleaved = torch.stack(batches, dim=1).flatten(0, 1)

    with torch.no_grad():
        (moments,), y = normalize_groups(layer, interleaved, 3)

        for group, batch in enumerate(batches):
            torch.testing.assert_close(y[group::3], layer.normalize_by_batch(batch), rtol=1e-9, atol=1e-9)
            covariance = moments.squares[group] / moments.n
            torch.testing.assert_close(covariance, torch.from_numpy(grouped_covariance(batch.numpy(), 2)))


def test_population_statistics_normalize_as_the_stored_ones_do():
    layer = layer_of(5, group_size=3)
    x = torch.from_numpy(mixed(40, 5, mean=3.0))
    layer.eval()
    layer.running_mean.copy_(x.mean(0))
    layer.running_covariance.copy_(torch.from_numpy(grouped_covariance(x.numpy(), 3)))

    with torch.no_grad():
        y = normalize_by(layer, x, layer.running_mean.double(), layer.running_covariance.double())

        torch.testing.assert_close(y, layer(x), rtol=1e-4, atol=1e-4)


def test_ghost_batches_are_whitened_one_by_one():
    ghosts, single = layer_of(4, virtual_batch_size=20, group_size=2), layer_of(4, group_size=2)
    x = torch.from_numpy(mixed(65, 4))

    y = ghosts(x)

    expected = torch.cat([single(part) for part in (x[:20], x[20:40], x[40:])])
    assert torch.equal(y, expected)
    assert torch.equal(ghosts.running_covariance, single.running_covariance)
    assert ghosts.updates == 3
