"""A small network of every family, frozen as a worker does it: folded, exported, and with the receipt of its bits."""

from typing import Any

import numpy as np
import torch

from bn_models.architecture import layers_of
from bn_models.export import InputScaling, OutputScaling, write_onnx
from bn_models.folding import fold
from bn_models.networks import build
from bn_models.population import measure
from bn_models.receipt import invariance, open_session
from core.spec import BatchNormSpec, PopulationSpec
from core.spec.network import FAMILIES as SPECS
from tests.networks import CLASSES, NETWORKS

SHAPE = (1, 8, 8)


def pixels(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 (count, *SHAPE), 0–16 as digits have them."""
    return np.random.default_rng(seed).uniform(0, 16, (count, *SHAPE)).astype(np.float32)


def frozen(family: str) -> tuple[bytes, dict[str, Any]]:
    """(ONNX bytes, card)."""
    spec: Any = SPECS[family].model_validate(NETWORKS[family])
    network = build(layers_of(spec, BatchNormSpec(), SHAPE, CLASSES), SHAPE, spec.initialization, seed=1)
    scaling = InputScaling(np.array(0.0), np.array(1 / 16))
    rows = pixels(128)
    statistics = measure(network, torch.from_numpy(scaling.apply(rows)).float(), PopulationSpec(), 32, seed=0)
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    folded = fold(network.layers, state, statistics)
    content = write_onnx(folded, SHAPE, scaling, "classification", OutputScaling(0.0, 1.0), {})
    proved = invariance(open_session(content), rows[:70])
    card = {
        "task": "classification",
        "input": {"kind": "image", "shape": list(SHAPE), "columns": None},
        "labels": [str(label) for label in range(CLASSES)],
        "receipt": {"batch_invariant": proved.batch_invariant, "largest_batch": proved.largest_batch, "threads": 1},
        "population": None,
    }
    return content, card
