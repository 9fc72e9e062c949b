from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bn_models.export import InputScaling, OutputScaling, write_onnx
from bn_models.folding import fold
from bn_models.population import using
from core.spec import BatchNormSpec
from core.spec import layers as spec
from core.spec.normalization import BatchOptions, LayerOptions, LocalResponseOptions
from tests.bn_models.random_lists import case_of

ACTIVATIONS = ["relu", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu"]


def answer(onnx_bytes, rows):
    session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"input": rows}), strict=True))


def expected_outputs(frozen):
    """The unfolded network in float64, from rows in the data's own units."""
    scaled = (frozen.probe_rows.astype(np.float64) - frozen.scaling.offset) * frozen.scaling.scale
    with torch.no_grad(), using(frozen.network.double(), frozen.statistics):
        return frozen.network(torch.from_numpy(scaled)).numpy()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("placement", [None, "before_activation", "after_activation"])
@pytest.mark.parametrize("family", ["mlp", "convnet"])
def test_the_graph_answers_raw_rows_as_the_unfolded_float64_network(freeze, family, placement, activation):
    batch_norm = BatchNormSpec(placement=placement) if placement else None
    frozen = freeze(family, batch_norm, activation=activation, dropout=0.2)

    outputs = answer(frozen.write_onnx(), frozen.probe_rows)

    expected = expected_outputs(frozen)
    exponentials = np.exp(expected - expected.max(1, keepdims=True))
    np.testing.assert_allclose(outputs["logits"], expected, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(outputs["probabilities"], exponentials / exponentials.sum(1, keepdims=True), atol=1e-4)


def test_global_averages_and_unpooled_stages_are_written_too(freeze):
    frozen = freeze(
        "convnet", BatchNormSpec(placement="after_activation"), head="global_average", pool_every=2, hidden=()
    )

    logits = answer(frozen.write_onnx(), frozen.probe_rows)["logits"]

    np.testing.assert_allclose(logits, expected_outputs(frozen), atol=1e-5)


def test_a_regression_answers_in_the_targets_units(freeze):
    frozen = freeze("mlp", BatchNormSpec(), task="regression")

    outputs = answer(frozen.write_onnx(), frozen.probe_rows)

    assert list(outputs) == ["value"]
    np.testing.assert_allclose(outputs["value"], expected_outputs(frozen) * 77 + 152, rtol=1e-4)


def test_one_column_that_needs_scaling_is_scaled(freeze):
    scales = np.array([1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    frozen = replace(freeze("mlp", BatchNormSpec()), scaling=InputScaling(np.zeros(7), scales))

    model = onnx.load_from_string(frozen.write_onnx())

    assert [node.op_type for node in model.graph.node][:2] == ["Mul", "Gemm"]


@pytest.mark.parametrize("placement", ["before_activation", "after_activation"])
@pytest.mark.parametrize("family", ["mlp", "convnet"])
def test_no_batch_norm_and_no_dropout_are_left_and_the_scaling_is_inside(freeze, family, placement):
    frozen = freeze(family, BatchNormSpec(placement=placement), dropout=0.2)

    model = onnx.load_from_string(frozen.write_onnx())

    operators = [node.op_type for node in model.graph.node]
    assert not {"BatchNormalization", "Dropout"} & set(operators)
    assert operators[:2] == (["Sub", "Mul"] if family == "mlp" else ["Mul", "Conv"])
    assert {entry.key: entry.value for entry in model.metadata_props} == {"a": "b"}


def test_the_batch_axis_is_symbolic_and_the_rest_is_fixed(freeze):
    model = onnx.load_from_string(freeze("convnet", BatchNormSpec()).write_onnx())

    def axes(value):
        return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]

    assert [(value.name, axes(value)) for value in model.graph.input] == [("input", ["batch", 2, 8, 8])]
    assert [(value.name, axes(value)) for value in model.graph.output] == [
        ("logits", ["batch", 3]),
        ("probabilities", ["batch", 3]),
    ]


def test_equal_networks_give_equal_bytes(freeze):
    assert freeze("convnet", BatchNormSpec()).write_onnx() == freeze("convnet", BatchNormSpec()).write_onnx()


def test_layers_may_be_called_as_the_graphs_own_values_are():
    def affine(name):
        return spec.BatchNorm(name=name, options=BatchOptions())

    def activation(name, kind="elu"):
        return spec.Activation(name=name, kind=kind)

    layers = (
        activation("value"),
        affine("input"),
        activation("output"),
        affine("probabilities"),
        activation("one"),
        spec.Linear(name="scaling", features=4, bias=True),
        spec.LayerNorm(name="shape", options=LayerOptions()),
        activation("zero", "silu"),
        spec.Linear(name="logits", features=3, bias=True),
    )
    case = case_of(layers, (4,))
    scaling = InputScaling(np.array(0.25), np.array(0.5))
    rows = (case.inputs / 0.5 + 0.25).astype(np.float32)

    graph = write_onnx(fold(layers, case.state, case.statistics), (4,), scaling, "classification")

    np.testing.assert_allclose(answer(graph, rows)["logits"], case.expected(), atol=1e-5)
    names = [node.name for node in onnx.load_from_string(graph).graph.node]
    assert len(set(names)) == len(names)
    assert names[-3:] == ["logits/layer", "logits", "probabilities"]


def test_nodes_are_called_as_their_layers_are():
    layers = (
        spec.Conv2d(name="stem", channels=4, kernel_size=3, padding=1, bias=False),
        spec.BatchNorm(name="stem_norm", options=BatchOptions()),
        spec.Residual(name="block", body=(spec.Conv2d(name="block.conv", channels=4, kernel_size=1, bias=True),)),
        spec.Parallel(name="fork", branches=((), (spec.MaxPool2d(name="pool", kernel_size=3, stride=1, padding=1),))),
        spec.LocalResponseNorm(name="local", options=LocalResponseOptions()),
        spec.GlobalAveragePool2d(name="head"),
        spec.Linear(name="out", features=3, bias=True),
    )
    case = case_of(layers, (2, 5, 5))

    written = write_onnx(
        fold(layers, case.state, case.statistics), (2, 5, 5), InputScaling(np.array(0), np.array(1)), "classification"
    )

    nodes = onnx.load_from_string(written).graph.node
    assert [(node.op_type, node.name) for node in nodes if "/" not in node.name] == [
        ("Conv", "stem"),
        ("Conv", "block.conv"),
        ("Add", "block"),
        ("MaxPool", "pool"),
        ("Concat", "fork"),
        ("Div", "local"),
        ("Flatten", "head"),
        ("Gemm", "out"),
        ("Identity", "logits"),
        ("Softmax", "probabilities"),
    ]


def test_a_regression_takes_every_layer_too():
    layers = (
        spec.LSTM(name="value", units=5, batch_norm=BatchOptions(), outputs="sequence"),
        spec.LSTM(name="second", units=4),
        spec.Linear(name="out", features=1, bias=True),
    )
    case = case_of(layers, (6, 2))
    scaling = InputScaling(np.array(0.0), np.array(1.0))

    folded = fold(layers, case.state, case.statistics)
    written = write_onnx(folded, (6, 2), scaling, "regression", OutputScaling(152.0, 77.0))

    rows = case.inputs.astype(np.float32)
    np.testing.assert_allclose(answer(written, rows)["value"], case.expected() * 77 + 152, rtol=1e-5)
