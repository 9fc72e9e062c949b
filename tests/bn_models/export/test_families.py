"""Every family, placement and normalization: folded, written, checked, and computed again from its weights file."""

import json

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from pydantic import TypeAdapter

from bn_models.architecture import layers_of
from bn_models.export import InputScaling, compare, reference, write_onnx, write_safetensors
from bn_models.folding import fold
from bn_models.networks import Network, build
from bn_models.population import LayerStatistics, PopulationStatistics, measure, using
from core.spec import JobSpec, PopulationSpec
from core.spec.layers import Layer
from tests.bn_models.folded_reference import folded
from tests.bn_models.random_lists import Case

FAMILIES = {
    "mlp": ({"family": "mlp", "hidden": [9, 7]}, (11,)),
    "convnet": ({"family": "convnet", "channels": [5, 6], "hidden": [7]}, (1, 9, 9)),
    "vgg": ({"family": "vgg", "depth": 11, "width": 3, "hidden": [8]}, (1, 8, 8)),
    "resnet": ({"family": "resnet", "blocks": [1, 1], "width": 5}, (3, 9, 9)),
    "bottleneck": ({"family": "resnet", "block": "bottleneck", "blocks": [1, 1], "width": 3}, (1, 8, 8)),
    "resnet-imagenet": ({"family": "resnet", "blocks": [1, 1], "width": 4, "stem": "imagenet"}, (3, 21, 21)),
    "inception": ({"family": "inception", "width": 0.07}, (1, 8, 8)),
    "inception-lrn": ({"family": "inception", "width": 0.07, "local_response_norm": True}, (3, 9, 9)),
    "recurrent": ({"family": "recurrent", "units": [6, 5]}, (1, 7, 5)),
    "recurrent-sequence": ({"family": "recurrent", "units": [6]}, (4, 3)),
}
BEFORE, AFTER = {"placement": "before_activation"}, {"placement": "after_activation"}
NORMALIZATIONS = {
    "none": None,
    "before": BEFORE,
    "after": AFTER,
    "gamma-before": {"affine": "gamma"},
    "beta-after": {"affine": "beta", **AFTER},
    "whitening-before": {"kind": "whitening", "group_size": 4},
    "whitening-after": {"kind": "whitening", "group_size": 4, "affine": False, **AFTER},
    "layer": {"kind": "layer"},
    "local-response-before": {"kind": "local_response", **BEFORE},
    "group-after": {"kind": "group", "groups": 1, **AFTER},
}
CASES = [
    (family, normalization)
    for family in FAMILIES
    for normalization in NORMALIZATIONS
    if not family.startswith("recurrent") or normalization in ("none", "before", "gamma-before")
]
SCALING = InputScaling(np.array(20.0), np.array(1 / 60))
STATISTICAL = ("population_mean", "population_variance", "population_covariance")


def build_network(family: str, normalization: str, activation: str = "elu") -> Network:
    """With gamma, beta and biases that are not at rest."""
    network, shape = FAMILIES[family]
    options = NORMALIZATIONS[normalization]
    if not family.startswith("recurrent"):
        network = network | {"activation": activation, "dropout": 0.2}
    spec = JobSpec.model_validate(
        {"dataset": {"source": "digits"}, "network": network, "batch_norm": False if options is None else options}
    )
    built = build(layers_of(spec.network, spec.batch_norm, shape, 3), shape, spec.network.initialization, seed=3)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in built.named_parameters():
        if not name.endswith("weight"):
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return built


def probe(network: Network) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (70, *network.input_shape)).astype(np.float32)


def frozen(network: Network):
    """(statistics, folded network), the statistics of the probe rows themselves."""
    inputs = torch.from_numpy(SCALING.apply(probe(network))).float()
    statistics = measure(network, inputs, PopulationSpec(), 32, seed=0)
    state = {name: value.detach().numpy() for name, value in network.named_parameters()}
    return statistics, fold(network.layers, state, statistics)


@pytest.mark.parametrize(("family", "normalization"), CASES)
def test_a_family_folds_exactly_and_its_graph_passes_the_receipt(family, normalization):
    network = build_network(family, normalization)
    statistics, small = frozen(network)
    rows = probe(network)

    graph = write_onnx(small, network.input_shape, SCALING, "classification")
    result = compare(graph, reference(network, statistics, SCALING, rows, "classification"))

    assert result.passed, result.as_json()
    assert result.batch_invariant
    operators = {node.op_type for node in onnx.load_from_string(graph).graph.node}
    assert not {"BatchNormalization", "Dropout"} & operators
    expected = result.reference.outputs
    exact = folded(small.layers, torch.from_numpy(SCALING.apply(rows))).numpy()
    np.testing.assert_allclose(exact, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize(("family", "normalization"), CASES)
def test_the_weights_file_alone_is_enough_to_compute_the_network(family, normalization):
    network = build_network(family, normalization)
    statistics, _ = frozen(network)
    inputs = SCALING.apply(probe(network))[:5]

    written = write_safetensors(network, statistics)

    with torch.no_grad(), using(network.double(), statistics):
        expected = network(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(read_back(written, inputs).expected(), expected, rtol=1e-10, atol=1e-10)


def read_back(written: bytes, inputs: np.ndarray) -> Case:
    """The layers, parameters and statistics of a file, for the reference that knows no module of ours."""
    facts = json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])["__metadata__"]
    tensors = safetensors.numpy.load(written)
    layers = TypeAdapter(tuple[Layer, ...]).validate_python(json.loads(facts["layers"]))
    state = {name: value.astype(np.float64) for name, value in tensors.items()}
    names = [name.rpartition(".")[0] for name in tensors if name.endswith(".population_mean")]
    measured = {
        name: LayerStatistics(
            tensors[f"{name}.population_mean"],
            tensors[f"{name}.population_variance"],
            0,
            tensors.get(f"{name}.population_covariance"),
        )
        for name in names
    }
    assert all(tensors[f"{name}.{what}"].dtype == np.float64 for name in names for what in STATISTICAL[:2])
    population = PopulationStatistics(measured, facts["estimator"], 1, 1, facts["variance"])
    return Case(layers, tuple(json.loads(facts["input_shape"])), state, population, inputs)


@pytest.mark.parametrize("normalization", ["none", "before"])
def test_an_lstm_over_the_rows_of_an_mnist_sized_image_passes(normalization):
    spec = JobSpec.model_validate(
        {
            "dataset": {"source": "digits"},
            "network": {"family": "recurrent", "units": [32]},
            "batch_norm": normalization != "none",
        }
    )
    network = build(
        layers_of(spec.network, spec.batch_norm, (1, 28, 28), 10), (1, 28, 28), spec.network.initialization, 0
    )
    statistics, small = frozen(network)

    graph = write_onnx(small, (1, 28, 28), SCALING, "classification")
    result = compare(graph, reference(network, statistics, SCALING, probe(network), "classification"))

    assert result.passed, result.as_json()
    assert result.batch_invariant
    assert result.as_json()["all_sizes"]
    products = [node for node in onnx.load_from_string(graph).graph.node if node.op_type == "MatMul"]
    assert len(products) == 1 + 27  # W_x x of all steps at once; W_h h of all but the first, whose h is 0
