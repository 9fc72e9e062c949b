import numpy as np
import pytest
import torch

from bn_models.folding import fold
from bn_models.networks import build
from bn_models.population import measure, using
from core.spec import BatchNormSpec, InitializationSpec, PopulationSpec
from core.spec import layers as spec
from tests.bn_models.folded_reference import affine_layers, folded

ACTIVATIONS = ["relu", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu"]


def float64_state(network):
    return {name: value.double().numpy() for name, value in network.state_dict().items()}


def check(network, inputs):
    """Folds `network` and compares it with itself unfolded, in float64; returns what affine layers stayed."""
    statistics = measure(network, inputs, PopulationSpec(), 16, seed=0)
    frozen = fold(network.layers, float64_state(network), statistics)

    with torch.no_grad(), using(network.double(), statistics):
        expected = network(inputs.double())

    torch.testing.assert_close(folded(frozen.layers, inputs.double()), expected, rtol=1e-10, atol=1e-10)
    return affine_layers(frozen.layers)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("placement", ["before_activation", "after_activation"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("family", ["mlp", "convnet"])
def test_the_folded_network_equals_the_unfolded_one(make_network, rows, family, activation, placement, affine):
    batch_norm = BatchNormSpec(placement=placement, affine=affine)
    network = make_network(family, batch_norm, activation=activation, dropout=0.3)

    stayed = check(network, rows(network, 48))

    after_convolution = family == "convnet" and placement == "after_activation"
    assert stayed == (["stage1.batch_norm", "stage2.batch_norm"] if after_convolution else [])


def test_a_flattened_map_takes_its_channels_map_along_into_the_linear_layer(make_network, rows):
    network = make_network("convnet", BatchNormSpec(placement="after_activation"), channels=(3,), pool_every=2)

    assert check(network, rows(network, 48)) == []


def test_an_average_of_a_map_takes_its_channels_map_along(make_network, rows):
    batch_norm = BatchNormSpec(placement="after_activation")
    network = make_network("convnet", batch_norm, channels=(3,), pool_every=2, head="global_average")

    assert check(network, rows(network, 48)) == []


def test_a_convolution_without_padding_takes_it_in_and_one_with_padding_does_not(make_network, rows):
    batch_norm = BatchNormSpec(placement="after_activation")
    options = {"channels": (3, 4), "pool_every": 2}
    without_padding = make_network("convnet", batch_norm, kernel_size=1, **options)
    with_padding = make_network("convnet", batch_norm, kernel_size=3, **options)

    assert check(without_padding, rows(without_padding, 48)) == ["stage2.batch_norm"]
    assert check(with_padding, rows(with_padding, 48)) == ["stage1.batch_norm", "stage2.batch_norm"]


def test_two_batch_norms_around_an_activation_and_one_on_the_input_fold_too():
    def normalize(name):
        return spec.BatchNorm(name=name, options=BatchNormSpec())

    layers = (
        normalize("input"),
        spec.Linear(name="first", features=4),
        normalize("before"),
        spec.Activation(name="act", kind="tanh"),
        normalize("after"),
        normalize("again"),
        spec.Linear(name="second", features=2),
        normalize("output"),
    )
    network = build(layers, (5,), InitializationSpec(), seed=0)

    assert check(network, torch.randn(64, 5, generator=torch.Generator().manual_seed(0)) + 3) == []


def test_a_network_without_batch_norm_keeps_its_weights(make_network):
    network = make_network("mlp", None, dropout=0.3)

    kept = fold(network.layers, float64_state(network), None)

    assert [layer.name for layer in kept.layers] == [
        layer.name for layer in network.layers if not isinstance(layer, spec.Dropout)
    ]
    assert np.array_equal(kept.layers[0].weight, network.get_submodule("hidden1.linear").weight.detach().double())


def test_batch_norm_without_statistics_is_refused(make_network):
    network = make_network("mlp")

    with pytest.raises(ValueError, match=r"hidden1\.batch_norm has no population statistics"):
        fold(network.layers, float64_state(network), None)
