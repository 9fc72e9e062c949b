"""Families as lists of layers, against the figures of their papers."""

import pytest

from bn_models.architecture import flat, layers_of, place
from core.spec import (
    BatchNormSpec,
    ConvNetSpec,
    InceptionSpec,
    JobSpec,
    MLPSpec,
    RecurrentSpec,
    ResNetSpec,
    SequentialSpec,
    VGGSpec,
)
from core.spec.normalization import BatchOptions, GroupNormSpec

IMAGENET = (3, 224, 224)


def names(spec, batch_norm, input_shape):
    return [layer.name for layer in layers_of(spec, batch_norm, input_shape, 10)]


def placed(spec, batch_norm, input_shape, outputs=10):
    return place(layers_of(spec, batch_norm, input_shape, outputs), input_shape)


def parameters(spec, batch_norm, input_shape, outputs=10):
    return sum(item.parameters for item in placed(spec, batch_norm, input_shape, outputs))


def kinds(layers):
    return [layer.layer for layer in layers]


def test_an_mlp_flattens_images_and_normalizes_before_the_activation():
    assert names(MLPSpec(hidden=(5,), dropout=0.2), BatchNormSpec(), (1, 8, 8)) == [
        "flatten",
        "hidden1.linear",
        "hidden1.batch_norm",
        "hidden1.activation",
        "hidden1.dropout",
        "output.linear",
    ]


def test_after_activation_puts_batch_norm_between_activation_and_dropout():
    batch_norm = BatchNormSpec(placement="after_activation")

    assert names(MLPSpec(hidden=(5,), dropout=0.2), batch_norm, (4,)) == [
        "hidden1.linear",
        "hidden1.activation",
        "hidden1.batch_norm",
        "hidden1.dropout",
        "output.linear",
    ]


def test_a_convnet_pools_every_nth_stage():
    assert names(ConvNetSpec(channels=(4, 4), pool_every=2, hidden=()), None, (1, 8, 8)) == [
        "stage1.conv",
        "stage1.activation",
        "stage2.conv",
        "stage2.activation",
        "stage2.pool",
        "head.flatten",
        "output.linear",
    ]


def test_only_the_layer_right_before_batch_norm_loses_its_bias():
    def biases(batch_norm):
        layers = layers_of(ConvNetSpec(channels=(4,), hidden=(5,)), batch_norm, (1, 8, 8), 10)
        return [layer.bias for layer in layers if hasattr(layer, "bias")]

    assert biases(BatchNormSpec()) == [False, False, True]
    assert biases(BatchNormSpec(placement="after_activation")) == [True, True, True]
    assert biases(None) == [True, True, True]


@pytest.mark.parametrize(
    ("depth", "published"), [(11, 132_863_336), (13, 133_047_848), (16, 138_357_544), (19, 143_667_240)]
)
def test_a_vgg_without_batch_norm_has_the_parameters_of_its_paper(depth, published):
    assert parameters(VGGSpec(depth=depth, hidden=(4096, 4096)), None, IMAGENET, 1000) == published


def test_a_vgg_16_with_batch_norm_trades_biases_for_gamma_and_beta():
    # Of the published 138,365,992 every convolution keeps a bias before its batch norm (4,224), and
    # the two hidden layers have a bias each where ours have gamma and beta.
    spec = VGGSpec(depth=16, hidden=(4096, 4096))

    assert parameters(spec, BatchNormSpec(), IMAGENET, 1000) == 138_365_992 - 4_224 + 2 * 4096


@pytest.mark.parametrize(("size", "pools"), [(224, 5), (32, 5), (28, 4), (8, 3)])
def test_a_vgg_leaves_out_the_pools_for_which_a_map_is_too_small(size, pools):
    layers = layers_of(VGGSpec(depth=11), None, (1, size, size), 10)

    assert kinds(layers).count("max_pool2d") == pools


@pytest.mark.parametrize(
    ("depth", "published"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_a_resnet_has_the_parameters_that_are_published_for_imagenet(depth, published):
    assert parameters(ResNetSpec(depth=depth), BatchNormSpec(), IMAGENET, 1000) == published


@pytest.mark.parametrize(("depth", "published"), [(20, 272_474), (56, 855_770), (110, 1_730_714)])
def test_a_small_resnet_has_the_parameters_that_are_published_for_cifar(depth, published):
    assert parameters(ResNetSpec(depth=depth), BatchNormSpec(), (3, 32, 32)) == published


def test_the_stages_of_a_resnet_50_have_the_sizes_of_table_1():
    shapes = {item.layer.name: item.output_shape for item in placed(ResNetSpec(depth=50), None, IMAGENET, 1000)}

    assert shapes["stem.activation"] == (64, 112, 112)
    assert shapes["stage1.block3.residual"] == (256, 56, 56)
    assert shapes["stage2.block4.residual"] == (512, 28, 28)
    assert shapes["stage3.block6.residual"] == (1024, 14, 14)
    assert shapes["stage4.block3.residual"] == (2048, 7, 7)


def test_the_depth_of_a_resnet_counts_its_convolutions_and_its_output_layer():
    spec = ResNetSpec(depth=50)

    weighted = [
        item.layer.name
        for item in flat(placed(spec, None, IMAGENET))
        if item.layer.layer in ("conv2d", "linear") and "shortcut" not in item.layer.name
    ]

    assert len(weighted) == 50


def test_a_residual_body_ends_with_the_normalization_of_the_sum():
    spec = ResNetSpec(blocks=(1,), width=4)

    before = layers_of(spec, BatchNormSpec(), (1, 8, 8), 10)
    after = layers_of(spec, BatchNormSpec(placement="after_activation"), (1, 8, 8), 10)

    assert kinds(before[3].body) == ["conv2d", "batch_norm", "activation", "conv2d", "batch_norm"]
    assert kinds(before[4:6]) == ["activation", "global_average_pool2d"]
    assert kinds(after[3].body) == ["conv2d", "activation", "batch_norm", "conv2d"]
    assert kinds(after[4:7]) == ["activation", "batch_norm", "global_average_pool2d"]


def test_projection_puts_a_convolution_beside_every_block():
    def projected(shortcut):
        layers = layers_of(ResNetSpec(shortcut=shortcut), BatchNormSpec(), (1, 8, 8), 10)
        return sum(layer.layer == "residual" and len(layer.shortcut) == 2 for layer in layers)

    assert (projected("identity"), projected("projection")) == (2, 9)


def test_inception_has_the_output_sizes_of_figure_5():
    items = placed(InceptionSpec(variant="full"), BatchNormSpec(), IMAGENET, 1000)
    shapes = {item.layer.name: item.output_shape for item in items}

    assert shapes["stem.7x7.conv"] == (64, 112, 112)
    assert shapes["stem.pool1"] == (64, 56, 56)
    assert shapes["stem.3x3.conv"] == (192, 56, 56)
    assert shapes["stem.pool2"] == (192, 28, 28)
    assert [shape for name, shape in shapes.items() if name.startswith("inception")] == [
        (256, 28, 28),
        (320, 28, 28),
        (576, 14, 14),
        (576, 14, 14),
        (576, 14, 14),
        (576, 14, 14),
        (576, 14, 14),
        (1024, 7, 7),
        (1024, 7, 7),
        (1024, 7, 7),
    ]
    assert shapes["head.global_average"] == (1024,)


def test_the_small_inception_keeps_the_three_groups_for_images_of_28():
    items = placed(InceptionSpec(), BatchNormSpec(), (1, 28, 28))

    sizes = [item.output_shape[1] for item in items if item.layer.layer == "parallel"]

    assert sizes == [28, 28, 14, 14, 14, 7, 7]


def test_the_inception_baseline_has_response_norm_and_dropout_in_place_of_batch_norm():
    spec = InceptionSpec(variant="full", local_response_norm=True, dropout=0.4)

    found = kinds(item.layer for item in flat(placed(spec, None, IMAGENET, 1000)))

    assert found.count("local_response_norm") == 2
    assert found[-2:] == ["dropout", "linear"]
    assert "batch_norm" not in found


def test_the_sigmoid_inception_has_no_other_activation():
    items = flat(placed(InceptionSpec(activation="sigmoid"), BatchNormSpec(), (1, 28, 28)))

    assert {item.layer.kind for item in items if item.layer.layer == "activation"} == {"sigmoid"}


def test_a_recurrent_network_reads_images_row_by_row_and_sequences_as_they_are():
    images = placed(RecurrentSpec(units=(5, 7)), None, (3, 8, 6))
    sequences = placed(RecurrentSpec(units=(5, 7)), None, (11, 4))

    assert [item.output_shape for item in images] == [(8, 18), (8, 5), (7,), (10,)]
    assert [item.output_shape for item in sequences] == [(11, 5), (7,), (10,)]


def test_a_recurrent_network_with_batch_norm_starts_its_gammas_at_a_tenth():
    body = {"dataset": {"source": "digits"}, "network": {"family": "recurrent"}}

    def gamma(batch_norm):
        return JobSpec.model_validate(body | {"batch_norm": batch_norm}).batch_norm.initial_gamma

    assert gamma(True) == gamma({"momentum": 0.2}) == 0.1
    assert gamma({"initial_gamma": 0.5}) == 0.5
    assert gamma({"affine": False}) == 1.0
    assert JobSpec.model_validate(body).batch_norm.initial_gamma == 0.1


CONVNET_BY_HAND = [
    {"name": "stage1.conv", "layer": "conv2d", "channels": 32, "kernel_size": 3, "padding": 1},
    {"name": "stage1.batch_norm", "layer": "normalization"},
    {"name": "stage1.activation", "layer": "activation", "kind": "relu"},
    {"name": "stage1.pool", "layer": "max_pool2d", "kernel_size": 2, "stride": 2},
    {"name": "stage2.conv", "layer": "conv2d", "channels": 64, "kernel_size": 3, "padding": 1},
    {"name": "stage2.batch_norm", "layer": "batch_norm"},
    {"name": "stage2.activation", "layer": "activation", "kind": "relu"},
    {"name": "stage2.pool", "layer": "max_pool2d", "kernel_size": 2, "stride": 2},
    {"name": "head.flatten", "layer": "flatten"},
    {"name": "hidden1.linear", "layer": "linear", "features": 128},
    {"name": "hidden1.batch_norm", "layer": "normalization"},
    {"name": "hidden1.activation", "layer": "activation", "kind": "relu"},
    {"name": "output.linear", "layer": "linear", "features": 10},
]


@pytest.mark.parametrize("batch_norm", [None, BatchNormSpec(), BatchNormSpec(affine="gamma", momentum=None)])
def test_a_written_list_of_the_convnet_is_the_convnet(batch_norm):
    written = SequentialSpec.model_validate({"layers": CONVNET_BY_HAND})

    assert layers_of(written, batch_norm, (1, 28, 28), 10) == layers_of(ConvNetSpec(), batch_norm, (1, 28, 28), 10)


def test_a_written_normalization_with_options_of_its_own_stays_as_written():
    lists = [
        {"layer": "batch_norm", "options": {"momentum": 0.3}},
        {"layer": "local_response_norm", "options": {}},
        {"layer": "layer_norm"},
        {"layer": "normalization"},
    ]
    written = SequentialSpec.model_validate({"layers": lists})

    on = layers_of(written, BatchNormSpec(eps=1e-3), (1, 8, 8), 10)
    off = layers_of(written, None, (1, 8, 8), 10)

    assert kinds(on) == ["batch_norm", "local_response_norm", "layer_norm", "batch_norm"]
    assert [layer.options.eps for layer in on if layer.layer != "local_response_norm"] == [1e-5, 1e-3, 1e-3]
    assert on[0].options.momentum == 0.3
    assert kinds(off) == ["batch_norm", "local_response_norm"]


@pytest.mark.parametrize("batch_norm", [None, BatchNormSpec(initial_gamma=0.1), BatchNormSpec(affine="beta")])
def test_a_written_lstm_that_stands_for_the_jobs_batch_norm_is_that_of_the_recurrent_network(batch_norm):
    lists = [
        {"name": "rows", "layer": "image_rows"},
        {"name": "recurrent1.lstm", "layer": "lstm", "units": 100, "batch_norm": True},
        {"name": "output.linear", "layer": "linear", "features": 10},
    ]
    written = SequentialSpec.model_validate({"layers": lists})

    assert layers_of(written, batch_norm, (1, 8, 8), 10) == layers_of(RecurrentSpec(), batch_norm, (1, 8, 8), 10)


@pytest.mark.parametrize(("given", "momentum"), [({"momentum": 0.3}, 0.3), (None, None), (False, None)])
def test_a_written_lstm_with_options_of_its_own_stays_as_written(given, momentum):
    lists = [{"layer": "image_rows"}, {"layer": "lstm", "units": 3, "batch_norm": given}]
    written = SequentialSpec.model_validate({"layers": lists})

    for batch_norm in (None, BatchNormSpec(momentum=0.5)):
        options = layers_of(written, batch_norm, (1, 8, 8), 10)[1].batch_norm
        assert (options and options.momentum) == momentum


def test_the_options_of_an_lstm_are_those_of_the_job_that_batch_norm_has():
    lists = [{"layer": "image_rows"}, {"layer": "lstm", "units": 3, "batch_norm": True}]
    written = SequentialSpec.model_validate({"layers": lists})
    jobs = GroupNormSpec(eps=1e-3, placement="after_activation", layers={"lstm1": {"momentum": 0.5, "kind": "batch"}})

    options = layers_of(written, jobs, (1, 8, 8), 10)[1].batch_norm

    assert options == BatchOptions(eps=1e-3, momentum=0.5)
    assert SequentialSpec.model_validate(written.model_dump(mode="json")) == written


def test_names_that_are_left_out_are_written_out_depth_first():
    conv = {"layer": "conv2d", "channels": 1, "kernel_size": 1}
    lists = [
        conv,
        {"layer": "residual", "body": [conv, {**conv, "name": "conv2d4"}], "shortcut": [conv]},
        {"layer": "parallel", "branches": [[], [conv]]},
    ]

    written = SequentialSpec.model_validate({"layers": lists})
    items = place(layers_of(written, None, (1, 8, 8), 10), (1, 8, 8))

    assert [item.layer.name for item in flat(items)] == ["conv2d1", "conv2d2", "conv2d4", "conv2d3", "conv2d5"]
    assert SequentialSpec.model_validate(written.model_dump()) == written
