"""Random lists, folded in float64, against the definitions of their layers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from bn_models.folding import fold
from tests.bn_models.folded_reference import folded
from tests.bn_models.random_lists import Case, cases


def check(case: Case) -> None:
    network = fold(case.layers, case.state, case.statistics)

    outputs = folded(network.layers, torch.from_numpy(case.inputs)).numpy()

    expected = case.expected()
    np.testing.assert_allclose(outputs, expected, rtol=1e-10, atol=1e-10 * max(1.0, np.abs(expected).max()))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases())
def test_a_folded_list_computes_what_the_unfolded_one_does(case: Case):
    check(case)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=3000, deadline=None)
@given(cases())
def test_many_more_of_them_do(case: Case):
    check(case)
