from math import sqrt

import pytest
import torch

from bn_models.architecture import layers_of
from bn_models.initialization import draw
from bn_models.networks import build
from core.errors import SpecInvalid
from core.spec import BatchNormSpec, InitializationSpec, MLPSpec
from core.spec import layers as spec
from core.spec.layers import Linear
from core.spec.normalization import BatchOptions

FAMILIES = ["mlp", "convnet"]


def drawn(kind, shape=(200, 300), scale=2.0):
    generator = torch.Generator().manual_seed(1)
    return draw(shape, InitializationSpec(kind=kind, scale=scale), generator)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_and_without_batch_norm_share_every_weight_that_both_have(make_network, family):
    variants = [None, BatchNormSpec(), BatchNormSpec(placement="after_activation")]
    networks = [dict(make_network(family, batch_norm).named_parameters()) for batch_norm in variants]
    plain = networks[0]

    for normalized in networks[1:]:
        shared = [name for name in plain if name in normalized and name.endswith("weight")]
        assert shared == [name for name in plain if name.endswith("weight")]
        assert all(torch.equal(plain[name], normalized[name]) for name in shared)


@pytest.mark.parametrize("family", FAMILIES)
def test_dropping_a_layer_leaves_the_weights_of_the_others(make_network, family):
    with_dropout = make_network(family, dropout=0.5).state_dict()
    without = make_network(family).state_dict()

    assert with_dropout.keys() == without.keys()
    assert all(torch.equal(with_dropout[name], without[name]) for name in without)


def test_equal_seeds_give_equal_bits_whatever_was_drawn_before():
    layers = layers_of(MLPSpec(), BatchNormSpec(), (4,), 3)
    first = build(layers, (4,), InitializationSpec(), seed=7).state_dict()
    torch.rand(3)

    again = build(layers, (4,), InitializationSpec(), seed=7).state_dict()
    other = build(layers, (4,), InitializationSpec(), seed=8).state_dict()

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["hidden1.linear.weight"], other["hidden1.linear.weight"])


def test_building_does_not_touch_the_default_generator():
    state = torch.get_rng_state()

    build(layers_of(MLPSpec(), BatchNormSpec(), (4,), 3), (4,), InitializationSpec(), seed=7)

    assert torch.equal(state, torch.get_rng_state())


def test_biases_and_beta_start_at_zero_and_gamma_at_one():
    batch_norm = BatchNormSpec(placement="after_activation")
    network = build(layers_of(MLPSpec(), batch_norm, (4,), 3), (4,), InitializationSpec(), seed=0)

    starts = {name.rpartition(".")[2]: value for name, value in network.named_parameters()}
    assert torch.equal(starts["bias"], torch.zeros(3))
    assert torch.equal(starts["gamma"], torch.ones(100))
    assert torch.equal(starts["beta"], torch.zeros(100))


@pytest.mark.parametrize(
    ("kind", "deviation"),
    [
        ("normal", 2.0),
        ("uniform", 2.0 / sqrt(3)),
        ("xavier_normal", 2.0 * sqrt(2 / 500)),
        ("xavier_uniform", 2.0 * sqrt(2 / 500)),
        ("he_normal", 2.0 * sqrt(2 / 300)),
        ("he_uniform", 2.0 * sqrt(2 / 300)),
    ],
)
def test_weights_have_the_standard_deviation_of_their_kind(kind, deviation):
    assert drawn(kind).std().item() == pytest.approx(deviation, rel=0.01)


def test_uniform_weights_stay_within_their_bound():
    assert drawn("uniform").abs().max().item() == pytest.approx(2.0, rel=1e-3)
    assert drawn("he_uniform").abs().max().item() == pytest.approx(2.0 * sqrt(6 / 300), rel=1e-3)


def test_the_fan_of_a_convolution_counts_its_window():
    weights = drawn("he_normal", shape=(64, 32, 3, 3), scale=1.0)

    assert weights.std().item() == pytest.approx(sqrt(2 / (32 * 9)), rel=0.02)


def test_layers_that_do_not_fit_are_refused():
    with pytest.raises(SpecInvalid):
        build((Linear(name="out", features=3),), (1, 4, 4), InitializationSpec(), seed=0)


def conv(name, channels, kernel_size=3, bias=False):
    return spec.Conv2d(name=name, channels=channels, kernel_size=kernel_size, padding=kernel_size // 2, bias=bias)


def norm(name, **options):
    return spec.BatchNorm(name=name, options=BatchOptions(**options))


def nested(**options):
    body = (
        conv("block.conv1", 4),
        norm("block.norm1", **options),
        conv("block.conv2", 4),
        norm("block.norm2", **options),
    )
    branches = ((conv("mix.a", 2), norm("mix.a_norm")), (), (conv("mix.b", 3, kernel_size=1, bias=True),))
    return (
        conv("stem", 4),
        spec.Residual(name="block", body=body),
        spec.Activation(name="relu", kind="relu"),
        spec.Parallel(name="mix", branches=branches),
        spec.AveragePool2d(name="pool", kernel_size=3, stride=2, padding=1),
        spec.GlobalAveragePool2d(name="average"),
        Linear(name="output", features=3, bias=True),
    )


def test_what_stands_inside_of_residual_and_parallel_layers_has_its_own_name_only():
    network = build(nested(), (2, 8, 8), InitializationSpec(), seed=0)

    names = {name for name in network.state_dict() if name.endswith(("weight", "gamma", "running_var"))}

    convolutions = {f"{name}.weight" for name in ("stem", "block.conv1", "block.conv2", "mix.a", "mix.b", "output")}
    norms = {
        f"{name}.{part}" for name in ("block.norm1", "block.norm2", "mix.a_norm") for part in ("gamma", "running_var")
    }
    assert names == convolutions | norms
    assert sum(parameter.numel() for parameter in network.parameters()) == sum(
        item.parameters for item in network.placed
    )


def test_residual_and_parallel_layers_add_and_join():
    network = build(nested(), (2, 8, 8), InitializationSpec(), seed=0).eval()
    part = network.get_submodule
    x = torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(0))

    stem = part("stem")(x)
    body = part("block.norm2")(part("block.conv2")(part("block.norm1")(part("block.conv1")(stem))))
    maps = torch.relu(body + stem)
    joined = torch.cat([part("mix.a_norm")(part("mix.a")(maps)), maps, part("mix.b")(maps)], dim=1)
    ones = torch.nn.functional.avg_pool2d(torch.ones_like(joined), 3, 2, 1)
    pooled = torch.nn.functional.avg_pool2d(joined, 3, 2, 1) / ones  # padding zeros do not count

    torch.testing.assert_close(network(x), part("output")(pooled.mean((2, 3))))


def test_a_block_whose_last_gamma_starts_at_zero_begins_as_its_shortcut():
    network = build(nested(zero_last_gamma=True), (2, 8, 8), InitializationSpec(), seed=0)
    gammas = {name: parameter for name, parameter in network.named_parameters() if name.endswith("gamma")}
    stem = torch.randn(5, 4, 8, 8)

    assert torch.equal(gammas["block.norm2.gamma"], torch.zeros(4))
    assert torch.equal(gammas["block.norm1.gamma"], torch.ones(4))
    assert torch.equal(gammas["mix.a_norm.gamma"], torch.ones(2))
    assert torch.equal(network.get_submodule("block")(stem), stem)


def test_a_gamma_of_a_shortcut_does_not_start_at_zero():
    body = (conv("body.conv", 4), norm("body.norm", zero_last_gamma=True))
    shortcut = (conv("short.conv", 4), norm("short.norm", zero_last_gamma=True))
    layers = (spec.Residual(name="block", body=body, shortcut=shortcut), spec.GlobalAveragePool2d(name="average"))

    network = build(layers, (4, 5, 5), InitializationSpec(), seed=0)

    assert torch.equal(network.get_parameter("body.norm.gamma"), torch.zeros(4))
    assert torch.equal(network.get_parameter("short.norm.gamma"), torch.ones(4))


def test_layers_may_be_called_as_torch_calls_its_own_methods():
    layers = (conv("type", 4), norm("type.norm"), spec.Flatten(name="train.flatten"), Linear(name="float", features=3))

    network = build(layers, (2, 4, 4), InitializationSpec(), seed=0)

    assert {"type.weight", "type.norm.gamma", "float.weight"} <= set(network.state_dict())
    assert network(torch.zeros(2, 2, 4, 4)).shape == (2, 3)


def test_the_rows_of_an_image_are_the_steps_of_a_sequence():
    layers = (spec.ImageRows(name="rows"), spec.LSTM(name="lstm", units=2), Linear(name="output", features=3))
    network = build(layers, (2, 3, 4), InitializationSpec(), seed=0)
    x = torch.arange(24.0).reshape(1, 2, 3, 4)

    rows = network.get_submodule("rows")(x)

    assert rows[0, 1].tolist() == [4.0, 5.0, 6.0, 7.0, 16.0, 17.0, 18.0, 19.0]
    assert network(x).shape == (1, 3)
