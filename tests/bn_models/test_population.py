import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from bn_models import networks
from bn_models.architecture import batch_bounds
from bn_models.normalization import batch_statistics, normalizations, recording
from bn_models.population import LayerStatistics, PopulationStatistics, apply, measure, sample_order, using
from core.errors import JobFailed
from core.spec import BatchNormSpec, PopulationSpec

FAMILIES = ["mlp", "convnet"]


def batches_of(network, inputs, spec, batch_size, seed, tail):
    """Moments of each batch of float64 data through the float64 network, one batch after the other."""
    order = sample_order(len(inputs), spec.samples, seed)
    for start, end in batch_bounds(len(order), batch_size, tail):
        with torch.no_grad(), batch_statistics(network), recording(network) as moments:
            network(inputs[order[start:end]])
        yield moments


def naive(network, inputs, spec, batch_size, seed):
    """(mean, variance) by layer, written out as the definitions say."""
    tail = "merge" if spec.estimator == "pooled" else "drop"
    seen = list(batches_of(network.double(), inputs.double(), spec, batch_size, seed, tail))
    for name in seen[0]:
        means = np.stack([moments[name].mean.numpy() for moments in seen])
        variances = np.stack([moments[name].variance.numpy() for moments in seen])
        m = np.array([moments[name].n for moments in seen])[:, None]
        if spec.estimator == "pooled":
            mean = (m * means).sum(0) / m.sum()
            yield name, mean, (m * (variances + (means - mean) ** 2)).sum(0) / m.sum()
        else:
            yield name, means.mean(0), m[0] / (m[0] - 1) * variances.mean(0)


@pytest.mark.parametrize("placement", ["before_activation", "after_activation"])
@pytest.mark.parametrize("samples", [None, 41])
@pytest.mark.parametrize("batch_size", [4, 9, 64])
@pytest.mark.parametrize("estimator", ["pooled", "algorithm_2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_many_batches_at_once_equal_batch_by_batch(
    make_network, rows, monkeypatch, family, estimator, batch_size, samples, placement
):
    monkeypatch.setattr(networks, "CPU_CHUNK_ELEMENTS", 2**11)  # several chunks of several batches
    spec = PopulationSpec(estimator=estimator, samples=samples)
    network = make_network(family, BatchNormSpec(placement=placement), dropout=0.5)
    inputs = rows(network, 69)

    single = measure(network, inputs, spec, min(batch_size, samples or 69), seed=2)
    double = measure(network.double(), inputs.double(), spec, min(batch_size, samples or 69), seed=2)

    for name, mean, variance in naive(network, inputs, spec, min(batch_size, samples or 69), seed=2):
        np.testing.assert_allclose(double.layers[name].mean, mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(double.layers[name].variance, variance, rtol=1e-9)
        np.testing.assert_allclose(single.layers[name].mean, mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(single.layers[name].variance, variance, rtol=1e-4)


def test_the_first_layers_statistics_are_those_of_all_data_however_it_is_split(make_network, rows):
    network = make_network("mlp").double()
    inputs = rows(network, 61).double()
    expected = network.get_submodule("hidden1.linear")(inputs).detach().numpy()

    for batch_size in (2, 7, 60, 61):
        layer = measure(network, inputs, PopulationSpec(), batch_size, seed=0).layers["hidden1.batch_norm"]

        assert layer.n == 61
        np.testing.assert_allclose(layer.mean, expected.mean(0), rtol=1e-12)
        np.testing.assert_allclose(layer.variance, expected.var(0), rtol=1e-12)


def test_n_counts_all_positions_of_a_map(make_network, rows):
    network = make_network("convnet")

    statistics = measure(network, rows(network, 20), PopulationSpec(), 8, seed=0)

    assert {name: layer.n for name, layer in statistics.layers.items()} == {
        "stage1.batch_norm": 20 * 8 * 8,
        "stage2.batch_norm": 20 * 4 * 4,
        "hidden1.batch_norm": 20,
    }


def test_data_of_mean_1000_and_deviation_a_tenth_is_measured_to_its_own_precision(make_network):
    network = make_network("mlp")
    linear = network.get_submodule("hidden1.linear")
    linear.weight.data = torch.eye(6, 7)
    inputs = torch.from_numpy(np.random.default_rng(0).normal(1000, 0.1, (500, 7))).float()

    layer = measure(network, inputs, PopulationSpec(), 20, seed=0).layers["hidden1.batch_norm"]

    np.testing.assert_allclose(layer.variance, inputs[:, :6].double().numpy().var(0), rtol=1e-9)


def test_running_average_is_what_training_kept(make_network, rows):
    network = make_network("mlp")
    network(rows(network, 30))

    statistics = measure(network, rows(network, 0), PopulationSpec(estimator="running_average"), 30, seed=0)

    layer = normalizations(network)["hidden2.batch_norm"]
    assert statistics.variance == "unbiased"
    assert np.array_equal(statistics.layers["hidden2.batch_norm"].mean, layer.running_mean.double().numpy())
    assert np.array_equal(statistics.layers["hidden2.batch_norm"].variance, layer.running_var.double().numpy())


def test_the_seed_decides_which_samples_are_measured():
    first, other = sample_order(100, 40, seed=0), sample_order(100, 40, seed=1)

    assert torch.equal(first, sample_order(100, 40, seed=0))
    assert not torch.equal(first, other)
    assert len(set(first.tolist())) == 40


def test_a_network_without_batch_norm_has_no_statistics(make_network, rows):
    network = make_network("mlp", None)

    assert measure(network, rows(network, 5), PopulationSpec(), 4, seed=0).layers == {}


def test_measuring_leaves_modes_and_running_averages_as_they_were(make_network, rows):
    network = make_network("convnet", dropout=0.5)
    network.get_submodule("stage1.batch_norm").eval()
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}

    measure(network, rows(network, 20), PopulationSpec(), 8, seed=0)

    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def everything_of(network):
    """Modes, hooks, substitutes, momenta, counts and state: what a pass over data might leave changed."""
    for module in network.modules():
        hooks = [dict(value) for name, value in vars(module).items() if name.endswith("_hooks")]
        yield module.training, hooks
    for layer in normalizations(network).values():
        yield layer.substitute, layer.momentum, layer.eps, layer.updates, layer.frozen
    yield from ([name, value.tolist()] for name, value in network.state_dict().items())


@pytest.mark.parametrize("estimator", ["pooled", "algorithm_2", "pooled_sequential"])
@pytest.mark.parametrize("family", FAMILIES)
def test_modes_hooks_and_momenta_are_restored_when_the_data_raises(make_network, rows, family, estimator, monkeypatch):
    monkeypatch.setattr(networks, "CPU_CHUNK_ELEMENTS", 1)  # so that the data comes in many pieces
    network = make_network(family, dropout=0.5, batch_norm=BatchNormSpec(momentum=0.3))
    next(iter(normalizations(network).values())).eval()
    network.register_forward_hook(lambda module, inputs, output: None)
    before, pieces = list(everything_of(network)), []

    def third_fails(piece):
        pieces.append(piece)
        if len(pieces) == 3:
            raise OSError("the data is gone")
        return piece

    with pytest.raises(OSError, match="gone"):
        measure(network, rows(network, 40), PopulationSpec(estimator=estimator), 4, seed=0, scale=third_fails)

    assert list(everything_of(network)) == before


@pytest.mark.parametrize("estimator", ["pooled", "algorithm_2", "running_average"])
def test_statistics_that_are_not_finite_fail_the_job_and_name_the_layer(make_network, rows, estimator):
    network = make_network("mlp")
    network.get_submodule("hidden2.linear").weight.data[1, 2] = float("inf")
    network.get_submodule("hidden2.batch_norm").running_var[1] = float("inf")

    with pytest.raises(JobFailed) as raised:
        measure(network, rows(network, 20), PopulationSpec(estimator=estimator), 8, seed=0)

    assert raised.value.code == "non_finite_statistics"
    assert "hidden2.batch_norm" in raised.value.message
    assert "1 of 5 channels" in raised.value.message


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_samples_are_refused_and_nothing_changes(make_network, rows, n):
    network = make_network("mlp")

    with pytest.raises(JobFailed, match="at least 2 samples"):
        measure(network, rows(network, n), PopulationSpec(), 8, seed=0)

    assert torch.equal(network.get_submodule("hidden1.batch_norm").running_mean, torch.zeros(6))


def test_evaluation_uses_the_statistics_only_while_they_are_in_place(make_network, rows):
    network = make_network("mlp")
    x = rows(network, 20)
    statistics = measure(network, x, PopulationSpec(), 20, seed=0)
    with batch_statistics(network):
        by_batch = network(x)
    with_running_average = network.eval()(x)

    with using(network.train(), statistics):
        by_population = network(x)
        assert not network.training

    # One batch of all samples: batch and population statistics are the same numbers.
    torch.testing.assert_close(by_population, by_batch, rtol=1e-4, atol=1e-5)
    assert network.training
    assert torch.equal(network.eval()(x), with_running_average)


def test_applied_statistics_stay(make_network, rows):
    network = make_network("mlp")
    statistics = measure(network, rows(network, 20), PopulationSpec(), 20, seed=0)

    apply(network, statistics)

    mean = statistics.layers["hidden1.batch_norm"].mean
    assert np.array_equal(network.get_submodule("hidden1.batch_norm").running_mean.numpy(), mean.astype(np.float32))


def test_statistics_of_another_network_are_refused(make_network, rows):
    network = make_network("mlp")
    statistics = measure(network, rows(network, 20), PopulationSpec(), 20, seed=0)

    with pytest.raises(ValueError, match="do not fit"):
        apply(make_network("convnet"), statistics)


def test_the_digest_changes_with_any_number_and_any_setting(make_network, rows):
    network = make_network("mlp")
    inputs = rows(network, 20)

    def digest(**settings):
        arguments = {"estimator": "pooled", "samples": None, "batch_size": 10, "seed": 0, **settings}
        spec = PopulationSpec(estimator=arguments["estimator"], samples=arguments["samples"])
        return measure(network, inputs, spec, arguments["batch_size"], arguments["seed"]).digest()

    variants = [{}, {"estimator": "algorithm_2"}, {"samples": 15}, {"batch_size": 5}, {"seed": 1}]

    assert digest() == digest()
    assert len({digest(**variant) for variant in variants}) == len(variants)


def test_statistics_as_json_carry_their_own_digest(make_network, rows):
    network = make_network("mlp")
    statistics = measure(network, rows(network, 20), PopulationSpec(), 20, seed=0)

    card = statistics.as_json()

    assert (card["estimator"], card["variance"], card["samples"]) == ("pooled", "biased", 20)
    assert card["sha256"] == statistics.digest()
    assert card["layers"]["hidden1.batch_norm"]["n"] == 20
    assert len(card["layers"]["hidden1.batch_norm"]["mean"]) == 6


def test_the_digest_of_batch_norm_statistics_is_as_it_was_before_there_were_covariances():
    mean, variance = np.array([1.0, -2.0]), np.array([0.5, 3.0])
    plain = LayerStatistics(mean, variance, 40)
    statistics = PopulationStatistics({"bn": plain}, "pooled", 8, 20, "biased", seconds=3.0)
    content = b"pooled|8|20|biased\nbn|40|2\n" + mean.tobytes() + variance.tobytes()

    assert statistics.digest() == hashlib.sha256(content).hexdigest()
    covered = LayerStatistics(mean, variance, 40, np.diag(variance))
    assert replace(statistics, layers={"bn": covered}).digest() != statistics.digest()
    assert "covariance" not in statistics.as_json()["layers"]["bn"]
    assert replace(statistics, layers={"bn": covered}).as_json()["layers"]["bn"]["covariance"] == [[0.5, 0], [0, 3.0]]
