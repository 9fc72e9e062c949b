"""The networks of the papers at 224×224: exported within the receipt's tolerance, in bounded time and memory."""

import time

import numpy as np
import onnx
import pytest
import torch

from bn_models.architecture import layers_of
from bn_models.export import InputScaling, compare, reference, write_onnx
from bn_models.folding import fold
from bn_models.networks import build
from bn_models.population import measure
from core.spec import JobSpec, PopulationSpec

SHAPE = (3, 224, 224)
SCALING = InputScaling(np.array(0.0), np.array(1 / 255))
RESNET = {"family": "resnet", "depth": 50}
INCEPTION = {"family": "inception", "variant": "full"}
BASELINE = {"family": "inception", "variant": "full", "local_response_norm": True, "dropout": 0.4}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("spec", "batch_norm"),
    [(RESNET, True), (INCEPTION, True), (BASELINE, False)],
    ids=["resnet-50", "inception", "inception-baseline"],
)
def test_a_network_of_its_paper_passes_the_receipt_at_224x224(spec, batch_norm):
    job = JobSpec.model_validate({"dataset": {"source": "digits"}, "network": spec, "batch_norm": batch_norm})
    network = build(layers_of(job.network, job.batch_norm, SHAPE, 1000), SHAPE, job.network.initialization, seed=0)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in network.named_parameters():
        if not name.endswith("weight"):
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    rows = np.random.default_rng(0).integers(0, 256, (24, *SHAPE)).astype(np.float32)
    inputs = torch.from_numpy(SCALING.apply(rows[:8])).float()
    statistics = measure(network, inputs, PopulationSpec(), 8, seed=0)
    state = {name: value.detach().numpy() for name, value in network.named_parameters()}

    began = time.perf_counter()
    graph = write_onnx(fold(network.layers, state, statistics), SHAPE, SCALING, "classification")
    result = compare(graph, reference(network, statistics, SCALING, rows, "classification"))
    seconds = time.perf_counter() - began

    told = result.as_json()
    print(f"{len(graph) / 1e6:.0f} MB in {seconds:.1f} s: {told}")
    assert result.passed
    assert result.batch_invariant
    assert told["largest_batch"] <= 16
    assert 8 <= told["rows"] <= 24
    assert not told["all_sizes"]
    operators = {node.op_type for node in onnx.load_from_string(graph).graph.node}
    assert not {"BatchNormalization", "Dropout"} & operators
