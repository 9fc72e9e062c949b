from math import sqrt

import pytest
import torch

from bn_models.architecture import layers_of
from bn_models.initialization import draw
from bn_models.networks import build
from core.errors import SpecInvalid
from core.spec import BatchNormSpec, InitializationSpec, MLPSpec
from core.spec.layers import Linear

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
