"""Graphs side by side: the mean of what each gives, whatever layers they have, with the bits of a row alone."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bn_models.architecture import layers_of
from bn_models.export import InputScaling, OutputScaling, write_ensemble, write_onnx
from bn_models.folding import fold
from bn_models.networks import build
from bn_models.population import running_average
from bn_models.receipt import invariance, open_session
from core.spec import JobSpec

SHAPE = (1, 8, 8)
FAMILIES = (
    {"family": "mlp", "hidden": [12], "activation": "sigmoid"},
    {"family": "resnet", "depth": 20, "width": 4},
    {"family": "recurrent", "units": [5]},
)


def graph(network: dict, seed: int, outputs: int = 3, task: str = "classification", scale: float = 1 / 16) -> bytes:
    spec = JobSpec.model_validate({"dataset": {"source": "digits"}, "network": network})
    layers = layers_of(spec.network, spec.batch_norm, SHAPE, outputs)
    built = build(layers, SHAPE, spec.network.initialization, seed)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    state = {name: value.detach().numpy() for name, value in built.named_parameters()}
    folded = fold(built.layers, state, running_average(built, 8))
    scaling = InputScaling(np.zeros(()), np.full((), scale))
    return write_onnx(folded, SHAPE, scaling, task, OutputScaling(100.0 * seed, 10.0))  # type: ignore[arg-type]


def answered(content: bytes, name: str, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content)
    return np.asarray(session.run([name], {"input": rows})[0])


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 16, (20, *SHAPE)).astype(np.float32)


def test_networks_of_all_kinds_answer_together_with_their_mean(rows: np.ndarray) -> None:
    members = [graph(network, seed, scale=1 / (16 + seed)) for seed, network in enumerate(FAMILIES)]

    whole = write_ensemble(members, "classification", {"weights_sha256": "ab"})

    expected = np.mean([answered(one, "probabilities", rows).astype(float) for one in members], axis=0)
    assert np.abs(answered(whole, "probabilities", rows) - expected).max() < 2e-7
    model = onnx.load_from_string(whole)
    names = [node.name for node in model.graph.node]
    assert len(names) == len(set(names)) == 1 + sum(len(onnx.load_from_string(one).graph.node) for one in members)
    assert [(prop.key, prop.value) for prop in model.metadata_props] == [("weights_sha256", "ab")]


def test_a_row_has_the_same_bits_alone_and_in_company(rows: np.ndarray) -> None:
    whole = write_ensemble([graph(FAMILIES[0], seed) for seed in range(3)], "classification")

    assert invariance(open_session(whole), rows).batch_invariant


def test_values_of_regressions_are_averaged_in_their_units(rows: np.ndarray) -> None:
    members = [graph(FAMILIES[0], seed, 1, "regression") for seed in (1, 2)]

    together = answered(write_ensemble(members, "regression"), "value", rows)

    expected = np.mean([answered(one, "value", rows) for one in members], axis=0)
    assert together.shape == (20, 1)
    assert np.allclose(together, expected, rtol=1e-6)


def test_members_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="other shapes"):
        write_ensemble([graph(FAMILIES[0], 0), graph(FAMILIES[0], 1, outputs=4)], "classification")
