from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from bn_models.export import InputScaling, OutputScaling, write_onnx
from bn_models.folding import FoldedNetwork, fold
from bn_models.networks import Network
from bn_models.population import PopulationStatistics, measure
from core.spec import BatchNormSpec, PopulationSpec


@dataclass(frozen=True)
class Frozen:
    """A network, its statistics, and probe rows in the data's own units."""

    network: Network
    statistics: PopulationStatistics
    folded: FoldedNetwork
    scaling: InputScaling
    probe_rows: np.ndarray
    task: Any
    output_scaling: OutputScaling

    def write_onnx(self, folded: FoldedNetwork | None = None) -> bytes:
        return write_onnx(
            folded or self.folded, self.network.input_shape, self.scaling, self.task, self.output_scaling, {"a": "b"}
        )

    def receipt_arguments(self) -> tuple:
        return self.network, self.statistics, self.scaling, self.probe_rows, self.task, self.output_scaling


@pytest.fixture
def freeze(make_network) -> Callable[..., Frozen]:
    """A trained-like network of a family, frozen: pixels 0–255 for images, unscaled columns for tables."""

    def make(family: str = "mlp", batch_norm: BatchNormSpec | None = None, task="classification", **fields) -> Frozen:
        network = make_network(family, batch_norm, outputs=1 if task == "regression" else 3, **fields)
        random = np.random.default_rng(4)
        if family == "convnet":
            probe_rows = random.integers(0, 256, (70, *network.input_shape)).astype(np.float32)
            scaling = InputScaling(np.array(0.0), np.array(1 / 255))
        else:
            probe_rows = random.normal(300.0, 20.0, (70, *network.input_shape)).astype(np.float32)
            scaling = InputScaling(probe_rows.mean(0, dtype=np.float64), 1 / probe_rows.std(0, dtype=np.float64))
        inputs = torch.from_numpy(scaling.apply(probe_rows)).float()
        statistics = measure(network, inputs, PopulationSpec(), 16, seed=0)
        state = {name: value.double().numpy() for name, value in network.state_dict().items()}
        folded = fold(network.layers, state, statistics)
        output_scaling = OutputScaling(152.0, 77.0) if task == "regression" else OutputScaling(0.0, 1.0)
        return Frozen(network, statistics, folded, scaling, probe_rows, task, output_scaling)

    return make
