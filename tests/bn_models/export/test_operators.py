"""Each layer by itself, as the graph has it: its definition's answers to the last bits, and the same in any company."""

import numpy as np
import pytest

from bn_models.export import InputScaling, write_onnx
from bn_models.folding import fold
from bn_models.receipt import answers, invariance, open_session
from core.spec import layers as spec
from core.spec.normalization import (
    BatchOptions,
    GroupOptions,
    InstanceOptions,
    LayerOptions,
    LocalResponseOptions,
    WhiteningOptions,
)
from tests.bn_models.random_lists import ACTIVATIONS, AFFINES, case_of

MAPS, VECTOR = (6, 5, 5), (9,)  # sizes that are no multiple of 4: where kernels treat the last numbers otherwise


def check(layer: spec.SimpleLayer, shape: tuple[int, ...], inputs: float = 1.0) -> None:
    case = case_of((layer, spec.Flatten(name="flat")), shape, rows=70)
    rows = (case.inputs * inputs).astype(np.float32)
    graph = write_onnx(
        fold(case.layers, case.state, case.statistics),
        shape,
        InputScaling(np.array(0.0), np.array(1.0)),
        "classification",
    )
    session = open_session(graph)

    outputs = answers(session, rows)

    expected = type(case)(case.layers, shape, case.state, case.statistics, rows.astype(np.float64)).expected()
    np.testing.assert_allclose(outputs, expected, rtol=2e-6, atol=4e-6 * np.abs(expected).max())
    assert invariance(session, rows).batch_invariant


@pytest.mark.parametrize("shape", [MAPS, VECTOR, (1,)])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_an_activation_far_below_and_far_above_zero(kind, shape):
    check(spec.Activation(name="layer", kind=kind), shape, inputs=10.0)


@pytest.mark.parametrize("size", range(1, 8))
def test_local_response_norm_over_an_even_and_an_odd_number_of_channels(size):
    options = LocalResponseOptions(size=size, alpha=2.0, beta=0.75, k=0.5)

    check(spec.LocalResponseNorm(name="layer", options=options), MAPS)
    check(spec.LocalResponseNorm(name="layer", options=options), VECTOR)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("kernel_size", "padding"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (5, 2)])
@pytest.mark.parametrize("pool", [spec.MaxPool2d, spec.AveragePool2d])
def test_a_pool_whose_padding_does_not_count(pool, kernel_size, padding, stride):
    check(pool(name="layer", kernel_size=kernel_size, stride=stride, padding=padding), MAPS)


@pytest.mark.parametrize(("kernel_size", "padding"), [(1, 0), (2, 1), (3, 0), (3, 2), (5, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution(kernel_size, padding, stride):
    check(
        spec.Conv2d(name="layer", channels=3, kernel_size=kernel_size, stride=stride, padding=padding, bias=True), MAPS
    )


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("shape", [MAPS, VECTOR])
@pytest.mark.parametrize(
    "make",
    [
        lambda affine: spec.BatchNorm(name="layer", options=BatchOptions(affine=affine)),
        lambda affine: spec.Whitening(name="layer", options=WhiteningOptions(affine=affine, group_size=4)),
        lambda affine: spec.LayerNorm(name="layer", options=LayerOptions(affine=affine)),
        lambda affine: spec.GroupNorm(name="layer", options=GroupOptions(affine=affine, groups=3)),
    ],
    ids=["batch", "whitening", "layer", "group"],
)
def test_a_normalization_that_no_layer_takes_in(make, shape, affine):
    check(make(affine), shape)


@pytest.mark.parametrize("affine", AFFINES)
def test_instance_norm(affine):
    check(spec.InstanceNorm(name="layer", options=InstanceOptions(affine=affine)), MAPS)


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 5, 4)])
def test_the_rows_of_an_image(shape):
    check(spec.ImageRows(name="layer"), shape)


@pytest.mark.parametrize("outputs", ["last", "sequence"])
@pytest.mark.parametrize("affine", [None, *AFFINES])
@pytest.mark.parametrize("shape", [(1, 3), (5, 1), (4, 7)])
def test_an_lstm_over_time(shape, affine, outputs):
    options = None if affine is None else BatchOptions(affine=affine)

    check(spec.LSTM(name="layer", units=5, batch_norm=options, outputs=outputs), shape)
