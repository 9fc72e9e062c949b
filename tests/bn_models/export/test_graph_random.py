"""Random lists as ONNX graphs: the answers of their definitions, and the same bits in any company."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings

from bn_models.export import InputScaling, write_onnx
from bn_models.folding import fold
from bn_models.receipt import answers, invariance, open_session
from tests.bn_models.random_lists import Case, cases

SCALING = InputScaling(np.array(0.5), np.array(1.5))


def check(case: Case) -> None:
    graph = write_onnx(fold(case.layers, case.state, case.statistics), case.input_shape, SCALING, "classification")
    session = open_session(graph)
    rows = (case.inputs / 1.5 + 0.5).astype(np.float32)

    outputs = answers(session, rows)

    expected = case.expected()
    assert np.abs(outputs - expected).max() <= 2e-4 * max(1.0, np.abs(expected).max())
    assert invariance(session, rows).batch_invariant
    operators = {node.op_type for node in onnx.load_from_string(graph).graph.node}
    assert not {"BatchNormalization", "Dropout"} & operators


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cases())
def test_a_written_graph_answers_as_the_list_is_defined_alone_and_in_any_company(case: Case):
    check(case)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=1500, deadline=None)
@given(cases())
def test_many_more_of_them_do(case: Case):
    check(case)
