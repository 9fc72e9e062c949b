import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bn_models.population import using
from core.spec import BatchNormSpec

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
