"""What the layers of a network make of fixed rows, while it trains and without it noticing.

Internal covariate shift is "the change in the distribution of network activations due to the change in
network parameters during training" (Ioffe & Szegedy 2015, section 2): here as percentiles of the inputs to
nonlinearities (Figure 1 b and c), and as drift of the moments of each layer's input.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bn_models import exact
from bn_models.architecture import Placed
from bn_models.architecture.observation import Site
from bn_models.blocks import Parallel, Residual
from bn_models.networks import Network
from bn_models.normalization import Moments, batch_statistics, evaluation
from bn_models.recurrent import LSTM

Array = NDArray[np.float64]
See = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Take:
    """What is wanted of one site. `saturation`: the share of an activation's range at either end that counts."""

    site: Site
    moments: bool = False
    saturation: float | None = None
    percentiles: tuple[float, ...] = ()
    unit: int | None = None


@dataclass(frozen=True)
class Reading:
    """What was wanted of a site, over all rows, pixels and time steps.

    `saturated`: share of the activations of a sigmoid or tanh; `dead`: share of the units of a ReLU that give 0 for
    all rows. `percentiles`: linearly interpolated, as numpy's.
    """

    moments: Moments | None
    saturated: float | None
    dead: float | None
    percentiles: dict[float, float]


@torch.no_grad()
def read(
    network: Network, batches: Iterable[Tensor], takes: Iterable[Take], by_running_average: bool = False
) -> dict[str, Reading]:
    """Sends scaled inputs (N, *input_shape) through the network and reads what is wanted, by the name of the site.

    Dropout is off; batch norm goes by the moments of each batch, or by its running average, which stays as it is. No
    random number is drawn, and every module is back in its mode when it ends.
    """
    tallies = {take.site.name: _Tally(take) for take in takes}

    def see(name: str, x: Tensor) -> None:
        if name in tallies:
            tallies[name].add(x)

    with evaluation(network) if by_running_average else batch_statistics(network):
        for x in batches:
            walk(network, x, see)
    return {name: tally.reading() for name, tally in tallies.items()}


def walk(network: Network, x: Tensor, see: See) -> Tensor:
    """`network(x)`, showing `see` what each site gets: (N, C), (N, C, H, W) or (N, T, F)."""
    return _run(network.placed, network.sequence, x, see)


def _run(placed: tuple[Placed, ...], modules: tuple[nn.Module, ...], x: Tensor, see: See) -> Tensor:
    for item, module in zip(placed, modules, strict=True):
        x = _through(item, module, x, see)
    return x


def _through(placed: Placed, module: nn.Module, x: Tensor, see: See) -> Tensor:
    if isinstance(module, Residual):
        body, shortcut = placed.inside
        return _run(body, module.body, x, see) + _run(shortcut, module.shortcut, x, see)
    if isinstance(module, Parallel):
        branches = zip(placed.inside, module.branches, strict=True)
        return torch.cat([_run(inside, branch, x, see) for inside, branch in branches], dim=1)
    see(placed.layer.name, x)
    if isinstance(module, LSTM):
        return _recurrent(placed.layer.name, module, x, see)
    y: Tensor = module(x)
    return y


def _recurrent(name: str, lstm: LSTM, x: Tensor, see: See) -> Tensor:
    """As LSTM.forward; what its nonlinearities get at all steps is shown together."""
    projected = lstm.input(x.transpose(0, 1))
    hidden = projected.new_zeros(len(x), lstm.units)
    cell = torch.zeros_like(hidden)
    states, gates, cells = [], [], []
    for step in range(lstm.steps):
        gates.append(lstm.gates(step, projected[step], lstm.hidden(hidden)))
        cell, output = lstm.advance(gates[-1], cell)
        cells.append(cell if lstm.cell_norm is None else lstm.cell_norm(cell, step))
        hidden = output * torch.tanh(cells[-1])
        states.append(hidden)
    opened, kept, value, output = torch.stack(gates, dim=1).chunk(4, dim=2)
    see(f"{name}.gates", torch.cat([opened, kept, output], dim=2))
    see(f"{name}.value", value)
    see(f"{name}.cell", torch.stack(cells, dim=1))
    return hidden if lstm.outputs == "last" else torch.stack(states, dim=1)


@dataclass
class _Tally:
    """Of one site, batch by batch; on the device until the end."""

    take: Take
    moments: list[Moments] = field(default_factory=list)
    saturated: list[Tensor] = field(default_factory=list)
    highest: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    count: int = 0

    def add(self, x: Tensor) -> None:
        take, columns = self.take, _columns(x)
        self.count += columns.numel()
        if take.moments:
            self.moments.append(_moments(x, columns))
        bound = None if take.saturation is None else saturated_beyond(take)
        if bound is not None:
            self.saturated.append((columns.abs() > bound).sum())
        elif take.saturation is not None and take.site.activation == "relu":
            self.highest.append(columns.amax(0))
        if take.percentiles:
            self.values.append(columns if take.unit is None else columns[:, take.unit])

    def reading(self) -> Reading:
        return Reading(
            _merged(self.moments) if self.moments else None,
            int(torch.stack(self.saturated).sum()) / self.count if self.saturated else None,
            1.0 - float((torch.stack(self.highest).amax(0) > 0.0).double().mean()) if self.highest else None,
            _percentiles(self.values, self.take.percentiles) if self.values else {},
        )


def saturated_beyond(take: Take) -> float | None:
    """The input from which on the activation is within its share of an end: σ(x) > 1 − s where x > ln((1 − s)/s),
    and half of that for tanh(x) = 2σ(2x) − 1, whose range is 2. None of what has no two ends."""
    if take.saturation is None or take.site.activation not in ("sigmoid", "tanh"):
        return None
    bound = math.log((1.0 - take.saturation) / take.saturation)
    return bound if take.site.activation == "sigmoid" else bound / 2.0


def _columns(x: Tensor) -> Tensor:
    """(values, channels); a view of vectors and of channels-last maps."""
    return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).reshape(-1, x.shape[-1] if x.dim() != 4 else x.shape[1])


def _moments(x: Tensor, columns: Tensor) -> Moments:
    if x.dim() != 3 and exact.has_long_sums(x):
        mean, variance = (torch.from_numpy(one) for one in exact.moments(x))
        return Moments(mean, variance, len(columns))
    variance, mean = torch.var_mean(columns.double(), dim=0, correction=0)
    return Moments(mean, variance, len(columns))


def _merged(parts: list[Moments]) -> Moments:
    """Of all batches together (Chan, Golub & LeVeque 1979)."""
    if len(parts) == 1:
        return parts[0]
    n = sum(part.n for part in parts)
    mean = sum((part.mean * (part.n / n) for part in parts), torch.zeros((), device=parts[0].mean.device))
    spread = ((part.variance + (part.mean - mean).square()) * (part.n / n) for part in parts)
    return Moments(mean, sum(spread, torch.zeros((), device=mean.device)), n)


def _percentiles(values: list[Tensor], percentiles: tuple[float, ...]) -> dict[float, float]:
    """numpy sorts 25,600 values in 0.06 ms, where its `percentile` takes 0.5 and torch's `sort` 1.8."""
    ordered = np.sort(torch.cat([part.reshape(-1) for part in values]).float().cpu().numpy())
    if np.isnan(ordered[-1]):  # the last place of any order
        return dict.fromkeys(percentiles, math.nan)
    return {percentile: _interpolated(ordered, percentile / 100.0 * (len(ordered) - 1)) for percentile in percentiles}


def _interpolated(ordered: NDArray[np.float32], position: float) -> float:
    index = int(position)
    low, high = float(ordered[index]), float(ordered[min(index + 1, len(ordered) - 1)])
    share = position - index
    return low + (high - low) * share if share and high > low else low


def shifts(before: Moments, now: Moments) -> tuple[float, float]:
    """How far the input of a layer has moved from one observation to the next: (of its mean, of its deviation).

    With mean μ and deviation σ = √variance of each of its C channels over the probe, before (') and now,

        mean shift      = √(Σ (μ − μ')² / C) / s'
        deviation shift = √(Σ (σ − σ')² / C) / s'        s' = √(Σ σ'² / C)

    both in deviations of the observation before: s' is that of the whole layer, because a channel that hardly varied
    would count without end if each were measured by its own. 0 where nothing moved; infinite from s' = 0 to anything.
    """
    (mean_before, deviation_before), (mean_now, deviation_now) = (_of_channels(moments) for moments in (before, now))
    scale = _root_mean_square(deviation_before)
    with np.errstate(invalid="ignore"):  # what is not finite has a drift that is no number, and is recorded as such
        moved = _root_mean_square(mean_now - mean_before), _root_mean_square(deviation_now - deviation_before)
    mean, deviation = (0.0 if shift == 0.0 else shift / scale if scale else math.inf for shift in moved)
    return mean, deviation


def _of_channels(moments: Moments) -> tuple[Array, Array]:
    """(mean, deviation)."""
    return moments.mean.cpu().numpy(), np.sqrt(moments.variance.clamp_min(0.0).cpu().numpy())


def _root_mean_square(values: Array) -> float:
    return math.sqrt(float(values @ values) / len(values))
