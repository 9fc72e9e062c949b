import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bn_models.architecture import layers_of, place
from bn_models.networks import build
from core.errors import SpecInvalid
from core.spec import BatchNormSpec, ConvNetSpec, MLPSpec
from core.spec.layers import Activation, Conv2d, Flatten, Linear, MaxPool2d

NORMALIZATIONS = [
    None,
    BatchNormSpec(),
    BatchNormSpec(placement="after_activation"),
    BatchNormSpec(affine=False),
]
NETWORKS = [
    (MLPSpec(), (1, 28, 28)),
    (MLPSpec(hidden=(), activation="tanh"), (13,)),
    (MLPSpec(hidden=(9, 4), dropout=0.5), (13,)),
    (ConvNetSpec(), (1, 28, 28)),
    (ConvNetSpec(channels=(4, 8, 8), pool_every=2, kernel_size=5, head="global_average", hidden=()), (3, 15, 11)),
]


@pytest.mark.parametrize("batch_norm", NORMALIZATIONS)
@pytest.mark.parametrize(("family", "input_shape"), NETWORKS)
def test_parameters_flops_and_shapes_equal_those_of_torch(family, input_shape, batch_norm):
    layers = layers_of(family, batch_norm, input_shape, outputs=10)
    network = build(layers, input_shape, family.initialization, seed=0)
    shapes = []
    for module in network._sequence:
        module.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))

    placed = place(layers, input_shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(2, *input_shape))

    assert sum(item.parameters for item in placed) == sum(value.numel() for value in network.parameters())
    assert 2 * sum(item.flops for item in placed) == counter.get_total_flops()
    assert [item.output_shape for item in placed] == shapes


def test_strides_and_padding_are_counted_as_torch_counts_them():
    layers = (
        Conv2d(name="a", channels=3, kernel_size=4, stride=3, padding=2),
        MaxPool2d(name="b", kernel_size=3, stride=2),
    )
    network = build(layers, (2, 17, 20), MLPSpec().initialization, seed=0)

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = network(torch.zeros(1, 2, 17, 20))
    placed = place(layers, (2, 17, 20))

    assert placed[-1].output_shape == tuple(output.shape[1:])
    assert sum(item.flops for item in placed) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("layers", "input_shape", "name", "remedy"),
    [
        ((Activation(name="act", kind="relu"), Linear(name="out", features=3)), (1, 4, 4), "out", "flatten"),
        ((Flatten(name="flat"), Conv2d(name="conv", channels=2, kernel_size=3)), (1, 4, 4), "conv", "feature maps"),
        ((MaxPool2d(name="pool", kernel_size=5, stride=1),), (1, 4, 9), "pool", "fewer stages"),
    ],
)
def test_a_layer_that_does_not_fit_is_named_with_a_remedy(layers, input_shape, name, remedy):
    with pytest.raises(SpecInvalid) as raised:
        place(layers, input_shape)

    (problem,) = raised.value.problems
    assert problem.pointer == f"/network/layers/{len(layers) - 1}"
    assert f"layer {name} " in problem.message
    assert remedy in problem.message
