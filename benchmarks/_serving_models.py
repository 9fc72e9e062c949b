"""A batch-normalized MLP and convnet as a training would publish them: folded, exported, with a card."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from bn_models.architecture import layers_of
from bn_models.export import InputScaling, OutputScaling, write_onnx
from bn_models.folding import fold
from bn_models.networks import Network, build
from bn_models.population import PopulationStatistics, measure
from core.artifacts import ArtifactStore
from core.db import Database
from core.identifiers import new_id
from core.queries import aliases, jobs, keys, models
from core.spec import BatchNormSpec, ConvNetSpec, MLPSpec, PopulationSpec

SCALING = InputScaling(np.array(0.0), np.array(1 / 255))
FAMILIES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "mlp": (MLPSpec(hidden=(100, 100, 100), activation="sigmoid"), (784,)),
    "convnet": (ConvNetSpec(channels=(8, 16), hidden=(32,)), (1, 28, 28)),
}


@dataclass(frozen=True)
class Frozen:
    network: Network
    statistics: PopulationStatistics
    shape: tuple[int, ...]
    onnx: bytes
    card: dict[str, Any]


def frozen(family: str) -> Frozen:
    """The same network at every call."""
    torch.set_num_threads(1)
    spec, shape = FAMILIES[family]
    network = build(layers_of(spec, BatchNormSpec(), shape, 10), shape, spec.initialization, seed=1)
    inputs = torch.from_numpy(SCALING.apply(rows(256).reshape(256, *shape))).float()
    statistics = measure(network, inputs, PopulationSpec(), 64, seed=0)
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    folded = fold(network.layers, state, statistics)
    onnx = write_onnx(folded, shape, SCALING, "classification", OutputScaling(0.0, 1.0), {})
    card = {
        "task": "classification",
        "input": {
            "kind": "image" if len(shape) == 3 else "table",
            "shape": list(shape),
            "columns": None,
            "moments": {"mean": [127.5] * shape[0], "variance": [5418.75] * shape[0]},
        },
        "labels": [str(number) for number in range(10)],
        "receipt": {"batch_invariant": True},
        "population": None,
    }
    return Frozen(network, statistics, shape, onnx, card)


def rows(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 (count, 784), pixels 0–255 with two decimals."""
    return np.round(np.random.default_rng(7).uniform(0, 255, (count, 784)), 2).astype(np.float32)


def publish(database: Database, store: ArtifactStore, key: str, name: str, model: Frozen) -> None:
    """As a worker does, for the tenant of `key`."""
    file = store.put_content(model.onnx, ".onnx")
    job_id, model_id = new_id("job"), new_id("mdl")
    with database.write() as connection:
        tenant = connection.execute(keys.active(key)).one().tenant_id
        connection.execute(
            jobs.create(
                id=job_id,
                tenant_id=tenant,
                idempotency_key=None,
                spec={},
                spec_sha256="0" * 64,
                name=name,
                family="mlp",
                metadata={},
                priority=0,
                needs_cuda=False,
                flops_per_step=1,
                steps=1,
            )
        )
        connection.execute(models.create(model_id, tenant, name))
        connection.execute(
            models.create_version(
                model_id=model_id,
                version=1,
                job_id=job_id,
                card=model.card,
                artifacts={"onnx": asdict(file)},
                weights_sha256="1" * 64,
                statistics_sha256=model.statistics.digest(),
            )
        )
        connection.execute(aliases.create(model_id, "latest", 1))
