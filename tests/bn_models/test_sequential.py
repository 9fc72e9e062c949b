"""`pooled_sequential`, end to end: what each layer gets once all layers below it are frozen."""

import numpy as np
import pytest
import torch

from bn_models import networks
from bn_models.networks import build
from bn_models.normalization import batch_statistics, normalizations, recording
from bn_models.population import freeze, measure, using
from bn_models.sequential import sequential_samples
from core.errors import JobFailed
from core.spec import InitializationSpec, PopulationSpec
from core.spec import layers as spec
from core.spec.normalization import BatchOptions, WhiteningOptions

SPEC = PopulationSpec(estimator="pooled_sequential")
BATCH = BatchOptions()


def conv(name, channels, stride=1):
    return spec.Conv2d(name=name, channels=channels, kernel_size=3, padding=1, stride=stride, bias=False)


def norm(name):
    return spec.BatchNorm(name=name, options=BATCH)


def relu(name):
    return spec.Activation(name=name, kind="relu")


def residual():
    return spec.Residual(
        name="block",
        body=(
            conv("block.conv1", 6, stride=2),
            norm("block.norm1"),
            relu("block.relu"),
            conv("block.conv2", 6),
            norm("block.norm2"),
        ),
        shortcut=(
            spec.Conv2d(name="block.project", channels=6, kernel_size=1, stride=2, bias=False),
            norm("block.norm3"),
        ),
    )


def parallel():
    branches = (
        (conv("mix.left", 2), norm("mix.norm1")),
        (conv("mix.right", 3), norm("mix.norm2"), relu("mix.relu")),
        (),
    )
    return spec.Parallel(name="mix", branches=branches)


def head():
    return spec.Flatten(name="flatten"), spec.Linear(name="output", features=3, bias=True)


LISTS = {
    "mlp": (
        (7,),
        (
            spec.Linear(name="one", features=6, bias=False),
            norm("n1"),
            relu("r1"),
            spec.Dropout(name="drop", probability=0.5),
            spec.Linear(name="two", features=5, bias=False),
            norm("n2"),
            spec.Linear(name="output", features=3, bias=True),
        ),
    ),
    "convnet": (
        (2, 8, 8),
        (
            conv("c1", 4),
            norm("n1"),
            relu("r1"),
            spec.MaxPool2d(name="p1", kernel_size=2, stride=2),
            conv("c2", 5),
            norm("n2"),
            *head(),
        ),
    ),
    "residual": ((2, 8, 8), (conv("stem", 4), norm("n1"), residual(), relu("r1"), parallel(), norm("n2"), *head())),
    "whitening": (
        (2, 8, 8),
        (
            conv("c1", 5),
            spec.Whitening(name="w1", options=WhiteningOptions(group_size=3)),
            relu("r1"),
            conv("c2", 4),
            spec.Whitening(name="w2", options=WhiteningOptions(group_size=4)),
            *head(),
        ),
    ),
    "lstm": (
        (5, 4),
        (
            spec.LSTM(name="cells", units=6, batch_norm=BATCH, outputs="sequence"),
            spec.LSTM(name="more", units=3, batch_norm=BATCH),
            norm("n2"),
            spec.Linear(name="output", features=3, bias=True),
        ),
    ),
}


def network_of(family):
    shape, layers = LISTS[family]
    return build(layers, shape, InitializationSpec(), seed=2)


def data(network, rows):
    generator = torch.Generator().manual_seed(4)
    return torch.randn(rows, *network.input_shape, generator=generator) * 1.5 + 0.5


@pytest.fixture(params=LISTS)
def network(request):
    return network_of(request.param)


def assert_same(one, other, tolerance):
    assert list(one.layers) == list(other.layers)
    for name, layer in one.layers.items():
        there = other.layers[name]
        scale = np.sqrt(layer.variance).max() + 1e-12
        np.testing.assert_allclose(layer.mean, there.mean, atol=tolerance * scale, rtol=tolerance, err_msg=name)
        np.testing.assert_allclose(
            layer.spread(), there.spread(), atol=tolerance * scale**2, rtol=tolerance, err_msg=name
        )


def test_each_layer_has_the_moments_of_what_it_gets_in_the_frozen_network(network):
    """Self-consistent: with the statistics in place, what each layer gets has exactly these moments."""
    network.double()
    inputs = data(network, 50).double()

    statistics = measure(network, inputs, SPEC, 8, seed=0)

    with torch.no_grad(), using(network, statistics), recording(network) as moments:
        network(inputs)
    for name, layer in statistics.layers.items():
        np.testing.assert_allclose(layer.mean, moments[name].mean, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(layer.variance, moments[name].variance, rtol=1e-7, atol=1e-12)
        assert layer.n == moments[name].n


def test_they_are_those_of_one_batch_of_all_samples(network):
    network.double()
    inputs = data(network, 50).double()

    with torch.no_grad(), batch_statistics(network), recording(network) as moments:
        network(inputs)

    for name, layer in measure(network, inputs, SPEC, 8, seed=0).layers.items():
        np.testing.assert_allclose(layer.variance, moments[name].variance, rtol=1e-6, atol=1e-12)


def test_no_batch_size_and_no_chunk_changes_them(network, monkeypatch):
    inputs = data(network, 60)
    first = measure(network, inputs, SPEC, 4, seed=0)
    again = measure(network, inputs, SPEC, 60, seed=0)
    monkeypatch.setattr(networks, "CPU_CHUNK_ELEMENTS", 2**10)
    in_small_chunks = measure(network, inputs, SPEC, 60, seed=0)

    assert first.digest() == again.digest()
    assert_same(first, in_small_chunks, 1e-5)


def test_activations_that_may_not_be_kept_are_computed_again(network):
    inputs = data(network, 40)
    kept = measure(network, inputs, PopulationSpec(estimator="pooled_sequential", samples=40), 8, seed=0)

    computed = measure(
        network, inputs, PopulationSpec(estimator="pooled_sequential", samples=40), 8, seed=0, memory_bytes=0
    )

    assert_same(kept, computed, 1e-6)


def test_where_activations_do_not_fit_a_stated_sample_is_measured(monkeypatch):
    monkeypatch.setattr("bn_models.sequential.DEFAULT_SAMPLES", 30)
    network = network_of("convnet")
    inputs = data(network, 100)

    everything, sample = (measure(network, inputs, SPEC, 8, seed=0, memory_bytes=limit) for limit in (2**30, 2**10))

    assert (everything.samples, everything.sampled) == (100, False)
    assert (sample.samples, sample.sampled) == (30, True)
    assert sample.layers["n1"].n == 30 * 64
    assert sample.seconds > 0.0
    assert sample.as_json()["sampled"] is True


def test_samples_that_are_asked_for_are_measured_whatever_the_memory():
    network = network_of("convnet")

    assert sequential_samples(network, 100, 77, memory_bytes=0) == 77
    assert sequential_samples(network, 50, 77, memory_bytes=0) == 50


@pytest.mark.parametrize("estimator", ["pooled", "pooled_sequential", "algorithm_2", "running_average"])
def test_frozen_layers_keep_the_statistics_that_they_were_frozen_with(network, estimator):
    inputs = data(network, 40)
    first = measure(network, inputs, PopulationSpec(), 8, seed=0)
    names = list(first.layers)[::2]
    freeze(network, first, names)
    network(data(network, 20) * 3)

    again = measure(network, inputs * 2, PopulationSpec(estimator=estimator), 8, seed=0)

    layers = normalizations(network)
    for name in names:
        assert layers[name].updates == 0
        assert again.layers[name].n == first.layers[name].n
        np.testing.assert_array_equal(again.layers[name].spread(), first.layers[name].spread().astype(np.float32))
    for name in set(first.layers) - set(names):
        assert layers[name].updates == 1


def test_modes_and_layers_are_restored_when_the_data_raises_in_the_middle(network):
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    calls = []

    def failing(chunk):
        calls.append(len(chunk))
        if len(calls) == 2:
            raise OSError("the data is gone")
        return chunk

    with pytest.raises(OSError, match="gone"):
        measure(network, data(network, 40), SPEC, 8, seed=0, scale=failing, memory_bytes=0)

    assert [module.training for module in network.modules()] == modes
    assert all(layer.substitute is None for layer in normalizations(network).values())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_statistics_that_are_not_finite_name_their_layer():
    network = network_of("convnet")
    network.get_submodule("c2").weight.data[1] = float("inf")

    with pytest.raises(JobFailed, match="n2"):
        measure(network, data(network, 20), SPEC, 8, seed=0)


def test_fewer_than_two_samples_are_refused():
    network = network_of("mlp")

    with pytest.raises(JobFailed, match="at least 2 samples"):
        measure(network, data(network, 1), SPEC, 8, seed=0)
