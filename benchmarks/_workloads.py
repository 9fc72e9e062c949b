"""The networks that the training benchmarks train: as a job's spec, and as plain torch modules of the same layers."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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


def plain_mlp(batch_norm: bool) -> nn.Module:
    hidden: list[nn.Module] = []
    for before, after in itertools.pairwise((784, 100, 100, 100)):
        hidden += [
            nn.Linear(before, after, bias=not batch_norm),
            *norm(nn.BatchNorm1d(after), batch_norm),
            nn.Sigmoid(),
        ]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(100, 10))


def plain_convnet(batch_norm: bool) -> nn.Module:
    def stage(before: int, after: int) -> list[nn.Module]:
        conv = nn.Conv2d(before, after, 3, padding=1, bias=not batch_norm)
        return [conv, *norm(nn.BatchNorm2d(after), batch_norm), nn.ReLU(), nn.MaxPool2d(2)]

    dense = [nn.Linear(64 * 49, 128, bias=not batch_norm), *norm(nn.BatchNorm1d(128), batch_norm), nn.ReLU()]
    return nn.Sequential(*stage(1, 32), *stage(32, 64), nn.Flatten(), *dense, nn.Linear(128, 10))


class Block(nn.Module):
    """He et al. 2015, Figure 2, with a 1×1 convolution as shortcut where the shape changes."""

    def __init__(self, before: int, after: int, stride: int, batch_norm: bool) -> None:
        super().__init__()

        def conv(inputs: int, kernel: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, after, kernel, stride, kernel // 2, bias=not batch_norm)
            return [convolution, *norm(nn.BatchNorm2d(after), batch_norm)]

        self.body = nn.Sequential(*conv(before, 3, stride), nn.ReLU(), *conv(after, 3, 1))
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv(before, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def plain_resnet(batch_norm: bool) -> nn.Module:
    stem = [nn.Conv2d(1, 16, 3, padding=1, bias=not batch_norm), *norm(nn.BatchNorm2d(16), batch_norm), nn.ReLU()]
    blocks = [Block(16, 16, 1, batch_norm), Block(16, 32, 2, batch_norm), Block(32, 64, 2, batch_norm)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def norm(layer: nn.Module, batch_norm: bool) -> list[nn.Module]:
    return [layer] if batch_norm else []


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
