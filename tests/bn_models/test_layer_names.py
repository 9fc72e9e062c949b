"""Names of layers are paths of modules and parameters: any that admission takes must work."""

import pytest
import torch
from pydantic import ValidationError

from bn_models.architecture import layers_of
from bn_models.networks import build
from core.spec import JobSpec


def spec_of(name: str) -> JobSpec:
    layers = [{"layer": "flatten"}, {"layer": "linear", "name": name, "features": 10}]
    return JobSpec.model_validate(
        {"dataset": {"source": "digits"}, "network": {"family": "sequential", "layers": layers}}
    )


@pytest.mark.parametrize("name", ["training", "a.training", "sequence", "training.a"])
def test_a_word_that_modules_keep_for_themselves_is_refused_as_a_name(name):
    with pytest.raises(ValidationError, match="sequence and training are words of modules: rename it"):
        spec_of(name)


@pytest.mark.parametrize(
    "name", ["layers", "placed", "input_shape", "forward", "train", "weight", "a.weight", "_modules", "_parameters"]
)
def test_any_other_word_trains_and_evaluates(name):
    spec = spec_of(name)
    network = build(layers_of(spec.network, spec.batch_norm, (1, 8, 8), 10), (1, 8, 8), spec.network.initialization, 0)

    network.eval()
    network.train()

    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert list(network.state_dict()) == [f"{name}.weight", f"{name}.bias"]
    network.load_state_dict(network.state_dict())
