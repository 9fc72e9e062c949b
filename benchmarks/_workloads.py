"""The networks that the training benchmarks train: as a job's spec, and as plain torch modules of the same layers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._plain_networks import plain_convnet, plain_mlp, plain_resnet
from bn_models.export import InputScaling
from core.errors import EvenkeelError
from core.spec import SOURCES, JobSpec, SourceFacts
from worker.trainer.data import Data, Scaler, Split, prepare
from worker.trainer.files import DataFolder

FOREVER = 10_000_000  # steps: a round ends when the benchmark says so, and nothing is evaluated or written


@dataclass(frozen=True)
class Workload:
    name: str
    batch_size: int
    network: dict[str, Any]
    plain: Callable[[bool], nn.Module]
    """With batch norm or without."""

    def spec(self, **changes: Any) -> JobSpec:
        training = {"steps": FOREVER, "evaluate_every": FOREVER, "checkpoint_every": FOREVER}
        training |= {"batch_size": self.batch_size, "tail": "drop"} | changes.pop("training", {})
        body = {"dataset": {"source": "mnist"}, "network": self.network, "optimizer": {"learning_rate": 0.05}}
        return JobSpec.model_validate(body | {"training": training, "publish": None} | changes)


WORKLOADS = {
    one.name: one
    for one in (
        Workload("mlp", 60, {"family": "mlp", "activation": "sigmoid"}, plain_mlp),
        Workload("convnet", 64, {"family": "convnet"}, plain_convnet),
        Workload("resnet", 64, {"family": "resnet", "blocks": [1, 1, 1]}, plain_resnet),
    )
}


def load_data(folder: Path, device: torch.device) -> tuple[Data, str]:
    """MNIST from `folder`, or random pixels of its shape: the time of a step does not depend on them."""
    spec = WORKLOADS["mlp"].spec()
    try:
        return prepare(spec.dataset, DataFolder(folder, "http://127.0.0.1:9"), device), "mnist"
    except EvenkeelError:
        return random_data(SOURCES["mnist"], device, (60_000, 10_000)), "random pixels"


def random_data(facts: SourceFacts, device: torch.device, rows: tuple[int, int]) -> Data:
    generator = torch.Generator().manual_seed(0)
    scaling = InputScaling(np.zeros(1), np.full(1, 1 / 255))
    scaler = Scaler.of(scaling, device)

    def split(count: int) -> Split:
        pixels = torch.randint(0, 256, (count, *facts.input_shape), dtype=torch.uint8, generator=generator)
        targets = torch.randint(0, facts.outputs, (count,), generator=generator)
        return Split(pixels.to(device), targets.to(device), None, scaler)

    training, test = split(rows[0]), split(rows[1])
    probe = test.inputs[:128].float().cpu().numpy()
    return Data(facts, training, None, test, scaling, None, tuple("0123456789"), (), probe)
