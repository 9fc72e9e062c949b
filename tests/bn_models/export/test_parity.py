import json
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from bn_models.export import Reference, compare, receipt, reference
from bn_models.folding import fold
from bn_models.frozen import FoldedLinear
from core.errors import JobFailed
from core.spec import BatchNormSpec


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("family", ["mlp", "convnet"])
def test_a_right_graph_passes_with_all_figures(freeze, family, task):
    frozen = freeze(family, BatchNormSpec(), task)

    result = receipt(frozen.write_onnx(), *frozen.receipt_arguments())

    assert result.passed
    assert result.maximum_difference <= result.tolerance
    assert result.tolerance == max(1e-5 * result.reference.output_scale, 4 * result.reference.float32_error)
    assert result.check.rows == 70
    assert result.check.onnxruntime == onnxruntime.__version__


@pytest.mark.parametrize(("float32_error", "output_scale", "tolerance"), [(0.5, 2.0, 2.0), (1e-6, 2.0, 2e-5)])
def test_the_tolerance_is_four_float32_errors_or_a_hundred_thousandth_of_the_output(
    float32_error, output_scale, tolerance
):
    nothing = np.zeros((1, 3))

    expected = Reference(nothing.astype(np.float32), nothing, float32_error, output_scale)

    assert expected.tolerance == pytest.approx(tolerance)


@pytest.mark.parametrize("placement", ["before_activation", "after_activation"])
@pytest.mark.parametrize("family", ["mlp", "convnet"])
def test_an_answer_has_the_same_bits_alone_and_in_company(freeze, family, placement):
    frozen = freeze(family, BatchNormSpec(placement=placement))

    assert receipt(frozen.write_onnx(), *frozen.receipt_arguments()).batch_invariant


def test_a_wrong_fold_fails_with_both_figures(freeze):
    frozen = freeze("mlp", BatchNormSpec())
    first = frozen.folded.layers[0]
    assert isinstance(first, FoldedLinear)
    forgotten = replace(first, bias=np.zeros_like(first.bias))  # the classic: the bias term of the fold left out
    wrong = frozen.write_onnx(replace(frozen.folded, layers=(forgotten, *frozen.folded.layers[1:])))

    with pytest.raises(JobFailed) as raised:
        receipt(wrong, *frozen.receipt_arguments())

    result = compare(wrong, reference(*frozen.receipt_arguments()))
    assert raised.value.code == "parity_failed"
    assert f"{result.maximum_difference:.3g}" in raised.value.message
    assert f"{result.tolerance:.3g}" in raised.value.message
    assert not result.passed


def test_an_answer_that_is_not_a_number_does_not_pass(freeze):
    frozen = freeze("mlp", BatchNormSpec())
    first = frozen.folded.layers[0]
    broken = replace(first, bias=np.full_like(first.bias, np.nan))

    wrong = frozen.write_onnx(replace(frozen.folded, layers=(broken, *frozen.folded.layers[1:])))
    result = compare(wrong, reference(*frozen.receipt_arguments()))

    assert not result.passed


def test_a_network_that_overflows_float32_does_not_pass_though_both_runtimes_agree_on_infinity(freeze):
    frozen = freeze("mlp", None)
    with torch.no_grad():
        for parameter in frozen.network.parameters():
            parameter.fill_(1e38)

    state = {name: value.double().numpy() for name, value in frozen.network.state_dict().items()}
    folded = fold(frozen.network.layers, state, None)
    with np.errstate(over="ignore", invalid="ignore"):
        result = compare(frozen.write_onnx(folded), reference(*frozen.receipt_arguments()))

    assert not result.passed


def test_the_receipt_is_json(freeze):
    frozen = freeze("mlp", BatchNormSpec())

    written = json.loads(json.dumps(receipt(frozen.write_onnx(), *frozen.receipt_arguments()).as_json()))

    assert written["passed"] is True
    assert written["maximum_difference"] > 0.0


def test_the_network_is_as_it_was(freeze):
    frozen = freeze("convnet", BatchNormSpec(), dropout=0.4)
    state = {name: value.clone() for name, value in frozen.network.state_dict().items()}

    receipt(frozen.write_onnx(), *frozen.receipt_arguments())

    assert frozen.network.training
    assert all(torch.equal(value, state[name]) for name, value in frozen.network.state_dict().items())
