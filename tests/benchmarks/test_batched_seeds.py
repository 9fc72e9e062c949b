"""The study of batched seeds trains what it says: the same networks as plain runs, up to rounding."""

import pytest
import torch

from benchmarks.batched_seeds import BATCHED, largest_difference


@pytest.mark.parametrize("kind", BATCHED)
def test_seeds_that_are_trained_side_by_side_are_those_trained_alone(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.rand(180, 784, generator=generator), torch.randint(0, 10, (180,), generator=generator)

    assert largest_difference(kind, data, range(3), steps=5) < 1e-5
