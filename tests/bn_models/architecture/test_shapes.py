import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bn_models.architecture import flat, layers_of, place
from bn_models.networks import build
from core.errors import SpecInvalid
from core.spec import (
    BatchNormSpec,
    ConvNetSpec,
    InceptionSpec,
    MLPSpec,
    RecurrentSpec,
    ResNetSpec,
    VGGSpec,
)
from core.spec.layers import (
    LSTM,
    Activation,
    AveragePool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    GroupNorm,
    ImageRows,
    Linear,
    MaxPool2d,
    Parallel,
    Residual,
)
from core.spec.normalization import (
    BatchOptions,
    GroupOptions,
    InstanceNormSpec,
    LayerNormSpec,
    LocalResponseNormSpec,
    WhiteningSpec,
)

NORMALIZATIONS = [
    None,
    BatchNormSpec(),
    BatchNormSpec(placement="after_activation"),
    BatchNormSpec(affine=False),
    BatchNormSpec(affine="gamma"),
    LayerNormSpec(affine="beta"),
    WhiteningSpec(group_size=3),
    InstanceNormSpec(layers={"hidden*": {"kind": "layer"}}),
    LocalResponseNormSpec(layers={"hidden*": {"kind": "layer", "placement": "before_activation"}}),
]
NETWORKS = [
    (MLPSpec(), (1, 28, 28)),
    (MLPSpec(hidden=(), activation="tanh"), (13,)),
    (MLPSpec(hidden=(9, 4), dropout=0.5), (13,)),
    (ConvNetSpec(), (1, 28, 28)),
    (ConvNetSpec(channels=(4, 8, 8), pool_every=2, kernel_size=5, head="global_average", hidden=(7,)), (3, 15, 11)),
    (VGGSpec(width=2, hidden=(6,)), (1, 28, 28)),
    (ResNetSpec(blocks=(1, 2), width=4), (3, 9, 8)),
    (ResNetSpec(block="bottleneck", blocks=(1, 1), width=3, stem="imagenet", shortcut="projection"), (1, 28, 28)),
    (InceptionSpec(width=0.05, local_response_norm=True), (3, 16, 16)),
    (InceptionSpec.model_validate({"variant": "full", "width": 0.05}), (3, 64, 48)),
]
RECURRENT = [
    (RecurrentSpec(units=(5, 3), dropout=0.1), (2, 6, 7)),
    (RecurrentSpec(units=(4,)), (9, 2)),
]
CASES = [
    (family, shape, batch_norm)
    for families, options in ((NETWORKS, NORMALIZATIONS), (RECURRENT, NORMALIZATIONS[:2] + NORMALIZATIONS[3:5]))
    for family, shape in families
    for batch_norm in options
    if not (hasattr(batch_norm, "layers") and batch_norm.layers and not getattr(family, "hidden", ()))
]


@pytest.mark.parametrize(("family", "input_shape", "batch_norm"), CASES)
def test_parameters_flops_and_shapes_equal_those_of_torch(family, input_shape, batch_norm):
    layers = layers_of(family, batch_norm, input_shape, outputs=10)
    network = build(layers, input_shape, family.initialization, seed=0)
    shapes = []
    for module in network.sequence:
        module.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))

    placed = place(layers, input_shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(2, *input_shape))

    whitened = isinstance(batch_norm, WhiteningSpec)  # its own products are not counted as the network's
    assert sum(item.parameters for item in placed) == sum(value.numel() for value in network.parameters())
    assert whitened or 2 * sum(item.flops for item in placed) == counter.get_total_flops()
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


def test_what_is_inside_of_a_layer_is_counted_and_comes_in_order_of_computation():
    def conv(name, stride=1):
        return Conv2d(name=name, channels=4, kernel_size=1, stride=stride, bias=False)

    layers = (
        Residual(
            name="sum",
            body=(conv("a", 2), Parallel(name="join", branches=((), (conv("b"),)))),
            shortcut=(Conv2d(name="c", channels=8, kernel_size=1, stride=2, bias=False),),
        ),
        conv("d"),
    )

    outer, last = place(layers, (4, 6, 6))

    assert [item.layer.name for item in flat((outer, last))] == ["a", "b", "c", "d"]
    assert outer.output_shape == (8, 3, 3)
    assert outer.parameters == 16 + 16 + 32
    assert outer.flops == 2 * 9 * (16 + 16 + 32)
    assert [[item.layer.name for item in branch] for branch in outer.inside] == [["a", "join"], ["c"]]


def test_an_lstm_counts_four_gates_a_step():
    (plain,) = place((LSTM(name="lstm", units=5),), (7, 3))
    (normalized,) = place((LSTM(name="lstm", units=5, batch_norm=BatchOptions(), outputs="sequence"),), (7, 3))

    assert (plain.output_shape, plain.parameters, plain.flops) == ((5,), 20 * (3 + 5) + 20, 7 * 2 * 20 * (3 + 5))
    assert (normalized.output_shape, normalized.parameters) == ((7, 5), plain.parameters + 20 + 20 + 5 + 5)


def conv(name, **fields):
    return Conv2d(name=name, **{"channels": 2, "kernel_size": 3, **fields})


MISFITS = [
    ((Activation(name="act", kind="relu"), Linear(name="out", features=3)), (1, 4, 4), "/1", "out", "flatten"),
    ((Flatten(name="flat"), conv("conv")), (1, 4, 4), "/1", "conv", "feature maps"),
    ((MaxPool2d(name="pool", kernel_size=5, stride=1),), (1, 4, 9), "/0", "pool", "fewer stages"),
    ((AveragePool2d(name="pool", kernel_size=3, stride=1, padding=2),), (1, 4, 9), "/0", "pool", "at most 1"),
    ((LSTM(name="lstm", units=3),), (1, 4, 4), "/0", "lstm", "image_rows"),
    ((ImageRows(name="rows"), Linear(name="out", features=3)), (1, 4, 4), "/1", "out", "flatten"),
    (
        (ImageRows(name="rows"), BatchNorm(name="bn", options=BatchOptions())),
        (1, 4, 4),
        "/1",
        "bn",
        "give the lstm layer batch_norm",
    ),
    ((GroupNorm(name="gn", options=GroupOptions(groups=4)),), (6, 4, 4), "/0", "gn", "one of 1, 2, 3, 6"),
    ((Residual(name="sum", body=(conv("a"),)),), (2, 4, 4), "/0", "sum", "(2, 2, 2), and the identity"),
    (
        (Residual(name="sum", body=(conv("a"),), shortcut=(conv("b"), conv("c", kernel_size=9))),),
        (2, 4, 4),
        "/0/shortcut/1",
        "c",
        "smaller than its 9×9 window",
    ),
    (
        (Parallel(name="join", branches=((), (conv("a", padding=1), conv("b")))),),
        (2, 4, 4),
        "/0",
        "join",
        "branch 1 gives (2, 2, 2)",
    ),
    ((Parallel(name="join", branches=((Flatten(name="flat"),),)),), (2, 4, 4), "/0", "join", "end it with maps"),
    (
        (Parallel(name="join", branches=((), (conv("a", padding=1), Linear(name="out", features=1)))),),
        (2, 4, 4),
        "/0/branches/1/1",
        "out",
        "flatten",
    ),
]


@pytest.mark.parametrize(("layers", "input_shape", "place_in_list", "name", "remedy"), MISFITS)
def test_a_layer_that_does_not_fit_is_named_with_its_place_and_a_remedy(
    layers, input_shape, place_in_list, name, remedy
):
    with pytest.raises(SpecInvalid) as raised:
        place(layers, input_shape)

    (problem,) = raised.value.problems
    assert problem.pointer == f"/network/layers{place_in_list}"
    assert f"layer {name} " in problem.message
    assert remedy in problem.message
