"""Networks small enough to check number by number, with weights far from their start."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from bn_models.architecture import layers_of
from bn_models.networks import Network, build
from core.spec import BatchNormSpec, ConvNetSpec, InitializationSpec, MLPSpec

MakeNetwork = Callable[..., Network]
DEFAULT = BatchNormSpec()
SHAPES = {"mlp": (7,), "convnet": (2, 8, 8)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As a trainer computes by default; on a busy machine, threads that wait for each other take seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_network() -> MakeNetwork:
    """`make_network("mlp" | "convnet", batch_norm, **fields of the family)`: gamma, beta and biases are not at rest."""

    def make(family: str, batch_norm: BatchNormSpec | None = DEFAULT, outputs: int = 3, **fields) -> Network:
        small = {"hidden": (6, 5)} if family == "mlp" else {"channels": (3, 4), "hidden": (5,)}
        spec = (MLPSpec if family == "mlp" else ConvNetSpec)(
            **{"initialization": InitializationSpec(kind="normal", scale=0.5), **small, **fields}
        )
        network = build(
            layers_of(spec, batch_norm, SHAPES[family], outputs), SHAPES[family], spec.initialization, seed=3
        )
        generator = torch.Generator().manual_seed(5)
        for name, parameter in network.named_parameters():
            if not name.endswith("weight"):
                parameter.data.normal_(0.2, 0.7, generator=generator)
        return network

    return make


@pytest.fixture
def rows() -> Callable[..., torch.Tensor]:
    """`rows(network, n)`: n scaled float32 inputs, neither centered nor of unit variance."""

    def draw(network: Network, n: int) -> torch.Tensor:
        values = np.random.default_rng(11).normal(0.7, 1.6, (n, *network.input_shape))
        return torch.from_numpy(values).float()

    return draw
