"""Unfolded weights as safetensors bytes, and digests of them."""

import hashlib
from collections.abc import Mapping

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from bn_models.networks import Network
from bn_models.normalization import STATE_NAMES
from bn_models.population import PopulationStatistics


def write_safetensors(
    network: Network, statistics: PopulationStatistics, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Parameters and running averages under their names, and for each batch norm layer its
    `<layer>.population_mean` and `.population_variance` in float64; estimator and digests as metadata."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    for name, layer in statistics.layers.items():
        tensors[f"{name}.population_mean"] = torch.from_numpy(layer.mean)
        tensors[f"{name}.population_variance"] = torch.from_numpy(layer.variance)
    facts = {
        "estimator": statistics.estimator,
        "variance": statistics.variance,
        "batch_size": str(statistics.batch_size),
        "samples": str(statistics.samples),
        "statistics_sha256": statistics.digest(),
        "weights_sha256": weights_digest(network.state_dict()),
    }
    return safetensors.torch.save(tensors, {**facts, **(metadata or {})})


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the name, dtype, shape and bytes of each parameter, sorted by name: what `weights_sha256` means.

    Running averages and their update count are no parameters and do not enter.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.rpartition(".")[2] in STATE_NAMES:
            continue
        array = np.ascontiguousarray(state[name].detach().cpu().numpy())
        digest.update(f"{name}|{array.dtype.str}|{array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
