"""Unfolded weights as safetensors bytes, and digests of them."""

import hashlib
import json
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
    """Parameters and running averages under their names, and the statistics of each layer that has some, in
    float64: `<layer>.population_mean`, `.population_variance` and, of whitening, `.population_covariance` (C, g).

    As metadata: the list of layers with all their options (eps among them) as JSON, the shape of a
    sample, how the statistics were measured, and digests. So the file alone is enough to compute
    what the network does to scaled inputs.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    for name, layer in statistics.layers.items():
        tensors[f"{name}.population_mean"] = torch.from_numpy(layer.mean)
        tensors[f"{name}.population_variance"] = torch.from_numpy(layer.variance)
        if layer.covariance is not None:
            tensors[f"{name}.population_covariance"] = torch.from_numpy(layer.covariance)
    facts = {
        "layers": json.dumps([layer.model_dump(mode="json") for layer in network.layers]),
        "input_shape": json.dumps(network.input_shape),
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
