"""Overrides of `batch_norm` for single layers, and the biases that follow from them."""

import pytest

from bn_models.architecture import flat, layers_of, place
from core.errors import SpecInvalid
from core.spec import ConvNetSpec, InceptionSpec, MLPSpec, RecurrentSpec, ResNetSpec, SequentialSpec
from core.spec.job import JobSpec
from core.spec.normalization import BatchOptions


def options(**fields):
    body = {"dataset": {"source": "digits"}, "network": {"family": "mlp"}, "batch_norm": fields}
    return JobSpec.model_validate(body).batch_norm


def found(spec, batch_norm, input_shape=(1, 8, 8)):
    items = flat(place(layers_of(spec, batch_norm, input_shape, 10), input_shape))
    return {item.layer.name: item.layer for item in items}


def normalizations(spec, batch_norm, input_shape=(1, 8, 8)):
    return {name: layer for name, layer in found(spec, batch_norm, input_shape).items() if hasattr(layer, "options")}


def refused(spec, batch_norm, input_shape=(1, 8, 8)):
    with pytest.raises(SpecInvalid) as raised:
        layers_of(spec, batch_norm, input_shape, 10)
    return [(problem.pointer, problem.message) for problem in raised.value.problems]


def test_without_overrides_every_layer_has_the_options_of_the_network_without_its_overrides():
    layers = normalizations(MLPSpec(), options(momentum=0.2, eps=1e-3))

    assert {type(layer.options) for layer in layers.values()} == {BatchOptions}
    assert {(layer.options.momentum, layer.options.eps) for layer in layers.values()} == {(0.2, 1e-3)}


@pytest.mark.parametrize("pattern", ["hidden2.batch_norm", "hidden2", "hidden2*", "*2.*", "h*2"])
def test_a_layer_is_named_by_its_name_the_beginning_of_it_or_a_pattern(pattern):
    layers = normalizations(MLPSpec(), options(layers={pattern: {"momentum": 0.5}}))

    assert [layer.options.momentum for layer in layers.values()] == [0.1, 0.5, 0.1]


def test_false_leaves_a_normalization_out_and_gives_the_bias_back():
    layers = found(MLPSpec(), options(layers={"hidden1": False}))

    assert "hidden1.batch_norm" not in layers
    assert layers["hidden1.linear"].bias is True
    assert layers["hidden2.linear"].bias is False


@pytest.mark.parametrize("order", [1, -1])
def test_the_most_specific_pattern_counts_whatever_the_order(order):
    patterns = dict([("*", False), ("hidden*", {"eps": 1e-4}), ("hidden2", {"eps": 1e-2})][::order])

    layers = normalizations(MLPSpec(), options(layers=patterns))

    assert [layer.options.eps for layer in layers.values()] == [1e-4, 1e-2, 1e-4]


def test_true_switches_one_layer_on_where_a_pattern_switches_all_off():
    layers = normalizations(MLPSpec(), options(momentum=0.3, layers={"*": False, "hidden3": True}))

    assert [(name, layer.options.momentum) for name, layer in layers.items()] == [("hidden3.batch_norm", 0.3)]


def test_placement_is_decided_layer_by_layer():
    layers = list(found(MLPSpec(hidden=(5, 5)), options(layers={"hidden2": {"placement": "after_activation"}})))

    assert layers[1:7] == [
        "hidden1.linear",
        "hidden1.batch_norm",
        "hidden1.activation",
        "hidden2.linear",
        "hidden2.activation",
        "hidden2.batch_norm",
    ]


def test_another_kind_keeps_what_both_kinds_have_and_is_named_as_what_it_is():
    layers = normalizations(
        ConvNetSpec(),
        options(
            eps=1e-3, momentum=0.3, layers={"stage2": {"kind": "group", "groups": 8}, "hidden1": {"kind": "layer"}}
        ),
    )

    assert [(name, layer.layer) for name, layer in layers.items()] == [
        ("stage1.batch_norm", "batch_norm"),
        ("stage2.group_norm", "group_norm"),
        ("hidden1.layer_norm", "layer_norm"),
    ]
    assert {layer.options.eps for layer in layers.values()} == {1e-3}
    assert layers["stage2.group_norm"].options.groups == 8


@pytest.mark.parametrize("family", [ResNetSpec(), InceptionSpec(), ConvNetSpec(), MLPSpec()])
def test_overrides_reach_the_normalizations_of_every_family(family):
    everywhere = normalizations(family, options(layers={"*": {"momentum": None}}))

    assert everywhere
    assert {layer.options.momentum for layer in everywhere.values()} == {None}


def test_overrides_reach_the_gates_of_an_lstm():
    layers = found(RecurrentSpec(units=(4, 4)), options(layers={"recurrent1": False, "recurrent2": {"momentum": 0.3}}))

    assert layers["recurrent1.lstm"].batch_norm is None
    assert layers["recurrent2.lstm"].batch_norm.momentum == 0.3


def test_an_lstm_takes_batch_norm_before_its_gates_only():
    assert [pointer for pointer, _ in refused(RecurrentSpec(), options(kind="layer"))] == ["/batch_norm/kind"]
    assert [pointer for pointer, _ in refused(RecurrentSpec(), options(placement="after_activation"))] == [
        "/batch_norm/placement"
    ]


def test_a_pattern_that_fits_nothing_is_told_the_nearest_names():
    [(pointer, message)] = refused(MLPSpec(), options(layers={"hiden2.batch_norm": False}))

    assert pointer == "/batch_norm/layers/hiden2.batch_norm"
    assert "nearest are hidden2.batch_norm, " in message


def test_a_pointer_into_the_overrides_is_escaped():
    [(pointer, _)] = refused(MLPSpec(), options(layers={"a/b~c": False}))

    assert pointer == "/batch_norm/layers/a~1b~0c"


def test_a_field_of_another_kind_is_refused_with_the_kinds_that_have_it():
    [(pointer, message)] = refused(MLPSpec(), options(layers={"hidden1": {"kind": "layer", "momentum": 0.5}}))

    assert pointer == "/batch_norm/layers/hidden1/momentum"
    assert "no option of the kind layer" in message
    assert "batch, whitening" in message


def test_null_is_refused_where_a_field_has_no_null():
    [(pointer, message)] = refused(MLPSpec(), options(layers={"hidden1": {"eps": None}}))

    assert pointer == "/batch_norm/layers/hidden1/eps"
    assert message == "must be a number, not null"


def test_gamma_starts_at_one_where_an_override_takes_it_away():
    layers = normalizations(MLPSpec(), options(initial_gamma=0.5, layers={"hidden1": {"affine": "beta"}}))

    assert [layer.options.initial_gamma for layer in layers.values()] == [1.0, 0.5, 0.5]


def test_beta_starts_at_zero_where_an_override_takes_it_away():
    layers = normalizations(MLPSpec(), options(initial_beta=0.5, layers={"hidden1": {"affine": "gamma"}}))

    assert [layer.options.initial_beta for layer in layers.values()] == [0.0, 0.5, 0.5]


def test_the_overrides_of_a_spec_survive_being_written_out():
    batch_norm = options(layers={"a*": False, "b": True, "c": {"momentum": None, "kind": "batch"}})

    written = batch_norm.model_dump(mode="json")

    assert written["layers"] == {"a*": False, "b": {}, "c": {"momentum": None, "kind": "batch"}}
    assert type(batch_norm).model_validate(written).model_dump(mode="json") == written


CONV = {"layer": "conv2d", "channels": 6, "kernel_size": 1}


@pytest.mark.parametrize(
    ("following", "bias"),
    [
        ({"layer": "batch_norm", "options": {}}, False),
        ({"layer": "whitening", "options": {}}, False),
        ({"layer": "instance_norm", "options": {}}, False),
        ({"layer": "group_norm", "options": {"groups": 6}}, False),
        ({"layer": "group_norm", "options": {"groups": 3}}, True),
        ({"layer": "layer_norm", "options": {}}, True),
        ({"layer": "local_response_norm", "options": {}}, True),
        ({"layer": "activation", "kind": "relu"}, True),
    ],
)
def test_a_bias_is_left_out_where_what_follows_subtracts_the_mean_of_each_channel(following, bias):
    written = SequentialSpec.model_validate({"layers": [{"layer": "residual", "body": [CONV, following]}]})

    (residual,) = layers_of(written, None, (6, 8, 8), 10)

    assert residual.body[0].bias is bias


def test_a_bias_that_was_written_stays():
    written = SequentialSpec.model_validate({"layers": [{**CONV, "bias": True}, {"layer": "normalization"}]})

    conv, _ = layers_of(written, options(), (6, 8, 8), 10)

    assert conv.bias is True
