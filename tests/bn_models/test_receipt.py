"""The check of frozen graphs, on graphs that are known to be right, wrong, or dependent on company."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import bn_models.receipt as receipt
from bn_models.receipt import answers, check, invariance, open_session


def graph(operator: str, shape: tuple[int, ...], **attributes) -> bytes:
    """One node, from "input" to "output"."""
    axes = ["batch", *shape]
    nodes = [helper.make_node(operator, ["input"], ["output"], **attributes)]
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)] for name in ("input", "output"))
    made = helper.make_graph(nodes, "one", inputs, outputs)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def draw(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def test_a_right_graph_passes_with_every_figure():
    rows = draw(70, 6)

    result = check(graph("Neg", (6,)), rows, -rows.astype(np.float64) + 3e-6, tolerance=1e-5)

    assert result.passed
    assert result.maximum_difference == pytest.approx(3e-6, rel=1e-3)
    assert (result.tolerance, result.rows, result.threads) == (1e-5, 70, 1)
    assert result.batch_invariant
    assert result.onnxruntime == onnxruntime.__version__


def test_a_wrong_graph_does_not_pass():
    rows = draw(8, 6)

    assert not check(graph("Neg", (6,)), rows, rows.astype(np.float64), tolerance=1e-5).passed


@pytest.mark.parametrize("tolerance", [np.nan, np.inf])
def test_a_tolerance_that_is_no_number_passes_nothing(tolerance):
    rows = draw(8, 6)

    assert not check(graph("Neg", (6,)), rows, -rows.astype(np.float64), tolerance).passed


def test_an_operator_whose_bits_depend_on_a_rows_place_is_found():
    session = open_session(graph("Elu", (5,)))  # ONNX Runtime computes it in eights of the whole batch

    assert not invariance(session, draw(70, 5)).batch_invariant


def test_every_output_of_a_graph_is_compared():
    axes = ["batch", 5]
    nodes = [helper.make_node("Identity", ["input"], ["logits"]), helper.make_node("Elu", ["input"], ["second"])]
    named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes) for name in ("input", "logits", "second")]
    made = helper.make_graph(nodes, "two", named[:1], named[1:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    assert not invariance(open_session(model.SerializeToString()), draw(70, 5)).batch_invariant


def test_all_powers_of_two_and_32_random_sizes_are_tried():
    tried = invariance(open_session(graph("Relu", (6,))), draw(70, 6))

    assert tried.batch_invariant
    assert tried.complete
    assert tried.sizes[:7] == (1, 2, 4, 8, 16, 32, 64)
    assert len(tried.sizes) == 7 + 32
    assert min(tried.sizes[7:]) >= 2
    assert tried.largest_batch == 64


def test_few_rows_keep_many_rows_company():
    assert invariance(open_session(graph("Relu", (6,))), draw(1, 6)).complete


def test_large_inputs_are_tried_in_smaller_batches():
    tried = invariance(open_session(graph("Relu", (3, 224, 224))), draw(3, 3, 224, 224))

    assert tried.batch_invariant
    assert not tried.complete
    assert tried.largest_batch == 16


def test_a_slow_graph_is_tried_in_fewer_sizes(monkeypatch):
    monkeypatch.setattr(receipt, "SECONDS", 1e-9)

    tried = invariance(open_session(graph("Relu", (6,))), draw(70, 6))

    assert tried.batch_invariant
    assert not tried.complete
    assert tried.sizes[:4] == (1, 2, 4, 8)
    assert len(tried.sizes) == 4 + receipt.FEWEST_RANDOM_SIZES
    assert tried.largest_batch == 8


def test_rows_are_answered_in_order_whatever_their_number():
    rows = draw(150, 6)

    assert np.array_equal(answers(open_session(graph("Neg", (6,))), rows), -rows)


def test_a_graph_that_is_none_is_refused_by_the_runtime():
    with pytest.raises(Exception, match=r"(?i)protobuf|model"):
        open_session(onnx.ModelProto().SerializeToString() + b"nonsense")
