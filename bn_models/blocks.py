"""Modules that have weights, or that join others: what a list of layers is made of beside normalization."""

import torch
from torch import Tensor, nn


class Linear(nn.Linear):
    """Without torch's own first draw, which would take numbers from the default generator.

    `gates`: so many layers of equal size in one weight, each of which is drawn as one of its own.
    """

    gates = 1

    def reset_parameters(self) -> None:
        """Leaves the weights unset; `initialize` draws them."""


class Conv2d(nn.Conv2d):
    """Without torch's own first draw, as `Linear`."""

    gates = 1

    def reset_parameters(self) -> None:
        """Leaves the weights unset; `initialize` draws them."""


class ImageRows(nn.Module):
    """(N, C, H, W) → (N, H, C·W): step h has the row h of the first channel, then of the second, and so on."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


class Residual(nn.Module):
    """body(x) + shortcut(x); an empty shortcut is the identity.

    The modules inside are not registered here: the network has all modules under the names of their layers.
    """

    body: tuple[nn.Module, ...] = ()
    shortcut: tuple[nn.Module, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        return run(self.body, x) + run(self.shortcut, x)


class Parallel(nn.Module):
    """Every branch gets x; their outputs are joined along the channels. An empty branch is the identity."""

    branches: tuple[tuple[nn.Module, ...], ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([run(branch, x) for branch in self.branches], dim=1)


def run(modules: tuple[nn.Module, ...], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x)
    return x
