"""Where an affine map goes, and where it must not go."""

import numpy as np
import pytest
import torch

from bn_models.folding import fold
from bn_models.frozen import Affine, FoldedConv2d, FoldedResidual, inverse_square_root
from core.spec import layers as spec
from core.spec.normalization import BatchOptions, LayerOptions, WhiteningOptions
from tests.bn_models.folded_reference import affine_layers, folded
from tests.bn_models.random_lists import case_of

MAPS = (4, 6, 6)


def norm(name="norm"):
    return spec.BatchNorm(name=name, options=BatchOptions())


def whitening(name="norm", **options):
    return spec.Whitening(name=name, options=WhiteningOptions(group_size=3, eps=1e-3, **options))


def conv(name, kernel_size=1, padding=0):
    return spec.Conv2d(name=name, channels=4, kernel_size=kernel_size, padding=padding, bias=True)


def relu(name="act"):
    return spec.Activation(name=name, kind="relu")


def stayed(*layers, shape=MAPS):
    """Folds, compares with the definition, and tells which affine maps stayed."""
    case = case_of(layers, shape)
    network = fold(case.layers, case.state, case.statistics)
    outputs = folded(network.layers, torch.from_numpy(case.inputs)).numpy()
    np.testing.assert_allclose(outputs, case.expected(), rtol=1e-10, atol=1e-10)
    return affine_layers(network.layers)


@pytest.mark.parametrize("make", [norm, whitening])
def test_a_map_goes_into_the_layer_right_before(make):
    assert stayed(conv("first", 3, 1), make()) == []
    assert stayed(spec.Flatten(name="flat"), spec.Linear(name="first", features=5, bias=False), make()) == []


@pytest.mark.parametrize("make", [norm, whitening])
@pytest.mark.parametrize(
    "between",
    [
        (),
        (spec.Dropout(name="dropout", probability=0.5),),
        (spec.AveragePool2d(name="pool", kernel_size=2, stride=2),),
        (spec.AveragePool2d(name="pool", kernel_size=3, stride=1, padding=1),),
    ],
)
def test_after_an_activation_a_map_goes_into_the_next_convolution_without_padding(make, between):
    assert stayed(relu(), make(), *between, conv("next", 2)) == []


@pytest.mark.parametrize("make", [norm, whitening])
def test_zero_padding_an_activation_or_a_maximum_keeps_it_where_it_is(make):
    assert stayed(relu(), make(), conv("next", 3, padding=1)) == ["norm"]
    assert stayed(relu(), make(), relu("other"), conv("next")) == ["norm"]
    assert stayed(relu(), make(), spec.MaxPool2d(name="pool", kernel_size=2, stride=2), conv("next")) == ["norm"]


@pytest.mark.parametrize("make", [norm, whitening])
@pytest.mark.parametrize("head", [spec.Flatten, spec.GlobalAveragePool2d])
def test_a_map_goes_through_the_head_into_the_linear_layer(make, head):
    assert stayed(relu(), make(), head(name="head"), spec.Linear(name="next", features=3, bias=False)) == []


def test_norms_of_single_samples_are_never_folded_across():
    layer_norm = spec.LayerNorm(name="layer", options=LayerOptions())

    assert stayed(relu(), norm(), layer_norm, conv("next")) == ["norm"]
    assert stayed(conv("first"), layer_norm, norm(), relu()) == ["norm"]


def test_a_fork_takes_a_map_in_only_when_every_way_can():
    padded, unpadded = conv("padded", 3, 1), conv("unpadded")
    pooled = (spec.AveragePool2d(name="pool", kernel_size=3, stride=1, padding=1), conv("projected"))

    both = spec.Parallel(name="fork", branches=((unpadded, relu("a")), pooled))
    one = spec.Parallel(name="fork", branches=((unpadded,), (padded,)))
    identity = spec.Parallel(name="fork", branches=((unpadded,), ()))

    assert stayed(relu(), norm(), both) == []
    assert stayed(relu(), norm(), one) == ["norm"]
    assert stayed(relu(), norm(), identity) == ["norm"]


def test_the_input_of_a_residual_layer_has_two_consumers():
    body = (conv("body", 1), norm("inside"))

    assert stayed(relu(), norm(), spec.Residual(name="sum", body=body)) == ["norm"]
    assert stayed(relu(), norm(), spec.Residual(name="sum", body=body, shortcut=(conv("shortcut"),))) == []


def test_a_convolution_before_a_residual_layer_takes_nothing_out_of_its_body():
    case = case_of((conv("first"), spec.Residual(name="sum", body=(norm(), relu(), conv("body")))), MAPS)

    first, block = fold(case.layers, case.state, case.statistics).layers

    assert isinstance(first, FoldedConv2d)
    assert np.array_equal(first.weight, case.state["first.weight"])
    assert isinstance(block, FoldedResidual)
    assert isinstance(block.body[0], Affine)


def test_a_norm_behind_a_sum_stays_and_one_in_a_shortcut_folds_into_it():
    shortcut = (conv("shortcut"), norm("projected"))
    block = spec.Residual(name="sum", body=(conv("body", 3, 1), norm("inside")), shortcut=shortcut)

    assert stayed(block, norm(), relu()) == ["norm"]


def test_maps_in_a_row_become_one_also_through_a_flattening():
    assert stayed(relu(), norm("a"), whitening("b"), norm("c"), relu("other")) == ["c"]
    assert stayed(relu(), norm("a"), spec.Flatten(name="flat"), norm("b"), relu("other")) == ["b"]
    assert stayed(relu(), whitening("a"), spec.Flatten(name="flat"), norm("b"), relu("other")) == ["a", "b"]


def test_newtons_iteration_converges_to_the_inverse_square_root_group_by_group():
    random = np.random.default_rng(0)
    rows = np.zeros((7, 3))
    for start, width in ((0, 3), (3, 3), (6, 1)):
        rows[start : start + width, :width] = np.atleast_2d(np.cov(random.normal(size=(width, 50))))

    matrix = inverse_square_root(rows, 1e-3, iterations=50)

    for start, width in ((0, 3), (3, 3), (6, 1)):
        group = slice(start, start + width)
        whitened = matrix[group, group] @ (rows[group, :width] + 1e-3 * np.eye(width)) @ matrix[group, group].T
        np.testing.assert_allclose(whitened, np.eye(width), atol=1e-12)
    assert np.count_nonzero(matrix) <= 9 + 9 + 1


def test_newtons_iteration_does_not_blow_up_where_channels_are_copies_of_each_other():
    signal = np.random.default_rng(0).normal(size=(2, 40))
    rows = np.cov(np.concatenate([signal] * 4))

    matrix = inverse_square_root(rows, 1e-8, iterations=50)

    whitened = matrix @ (rows + 1e-8 * np.eye(8)) @ matrix.T
    np.testing.assert_allclose(whitened, np.eye(8), atol=1e-5)


def test_whitening_without_a_covariance_is_refused():
    case = case_of((conv("first"), norm()), MAPS)

    with pytest.raises(ValueError, match="norm whitens, and its population statistics have no covariance"):
        fold((conv("first"), whitening()), case.state, case.statistics)


def test_folding_float32_parameters_is_folding_their_float64_values():
    case = case_of((conv("first"), norm(), relu(), whitening("white"), conv("next")), MAPS)
    single = {name: value.astype(np.float32) for name, value in case.state.items()}
    double = {name: value.astype(np.float64) for name, value in single.items()}

    pairs = zip(
        fold(case.layers, single, case.statistics).layers,
        fold(case.layers, double, case.statistics).layers,
        strict=True,
    )

    for of_single, of_double in pairs:
        if isinstance(of_single, FoldedConv2d):
            assert of_single.weight.dtype == np.float64
            assert np.array_equal(of_single.weight, of_double.weight)
