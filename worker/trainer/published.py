"""A published version read back from its files: what it takes and gives, its weights, and its statistics."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from bn_models.export import InputScaling, OutputScaling, weights_digest
from bn_models.networks import Network
from bn_models.population import LayerStatistics, PopulationStatistics
from core.artifacts import ArtifactStore
from core.errors import JobFailed
from core.spec import SourceFacts
from core.spec.base import StoredFile
from worker.trainer.data import Scalings
from worker.trainer.patience import Patience


@dataclass(frozen=True)
class Version:
    """`metadata` is that of the file of weights; `statistics` are of no layer where none has any."""

    card: dict[str, Any]
    tensors: dict[str, Tensor]
    metadata: Mapping[str, str]
    statistics: PopulationStatistics

    @property
    def facts(self) -> SourceFacts:
        """What the model takes and gives, as facts of a source."""
        given, labels = self.card["input"], self.card["labels"]
        maximum = given["pixel_range"][1] if given["pixel_range"] else None
        outputs = len(labels) if labels else 1
        return SourceFacts(self.card["task"], given["kind"], tuple(given["shape"]), outputs, 0, None, maximum)

    @property
    def scalings(self) -> Scalings:
        scaling, outputs = self.card["scaling"], self.card["output_scaling"]
        return Scalings(
            InputScaling(np.array(scaling["offset"]), np.array(scaling["scale"])),
            OutputScaling(outputs["offset"], outputs["scale"]) if outputs else None,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.card["labels"] or ())

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.card["input"]["columns"] or ())

    def fill(self, network: Network, weights_sha256: str, told: str) -> None:
        """Puts the weights into a network of these layers. Raises JobFailed when they are not what was published."""
        try:
            network.load_state_dict({name: self.tensors[name] for name in network.state_dict()})
        except (KeyError, RuntimeError) as error:
            raise JobFailed("storage_error", f"the weights of {told} do not fit its network: {error}") from error
        if weights_digest(network.state_dict()) != weights_sha256:
            raise JobFailed("storage_error", f"the weights of {told} are not what was published")


def read_version(store: ArtifactStore, patience: Patience, card_file: StoredFile, weights: StoredFile) -> Version:
    """Raises JobFailed when a file is none of what its name says."""
    card = json.loads(patience.insist(lambda: store.get(card_file.name, card_file.sha256)))
    content = patience.insist(lambda: store.get(weights.name, weights.sha256))
    try:
        tensors, facts = load(content), _metadata(content)
        statistics = PopulationStatistics(
            _layers(card, tensors),
            facts["estimator"],
            int(facts["batch_size"]),
            int(facts["samples"]),
            facts["variance"],
        )
    except (SafetensorError, KeyError, ValueError) as error:
        raise JobFailed("storage_error", f"{weights.name} is no file of weights: {error!r}") from error
    return Version(card, tensors, facts, statistics)


def _layers(card: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, LayerStatistics]:
    return {
        name: LayerStatistics(
            _array(tensors[f"{name}.population_mean"]),
            _array(tensors[f"{name}.population_variance"]),
            layer["n"],
            _array(tensors[f"{name}.population_covariance"]) if f"{name}.population_covariance" in tensors else None,
        )
        for name, layer in ((card["population"] or {}).get("layers") or {}).items()
    }


def _metadata(content: bytes) -> Any:
    (size,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + size])["__metadata__"]


def _array(values: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.to(torch.float64).numpy()
    return array
