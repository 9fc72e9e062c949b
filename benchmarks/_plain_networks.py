"""The networks of the training benchmarks as plain torch modules. Imports torch and nothing else."""

import itertools

import torch
from torch import Tensor, nn


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
