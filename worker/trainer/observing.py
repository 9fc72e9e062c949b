"""`observe`: figures of a job's layers, on the same rows every time, as series `observe/<layer>/<figure>`."""

from math import prod

import numpy as np
import torch
from torch import Tensor

from bn_models.architecture import batch_bounds, flat
from bn_models.architecture.observation import Site, series_name, sites, with_percentiles
from bn_models.networks import Network
from bn_models.normalization import Moments
from bn_models.observation import Reading, Take, read, shifts
from bn_models.randomness import derive_seed
from core.spec.observation import ObserveSpec, percentile_name
from worker.trainer.data import Data, Split
from worker.trainer.run import Run

LARGEST_MAP = 2**26
"""Values that a layer may give for one batch of the probe; wider networks get it in several."""
FIRST_STEP = 1


class Observer:
    """Reads weights, gradients and what the network makes of the probe. It writes to nothing that training reads, and
    draws no random number."""

    def __init__(self, run: Run, observe: ObserveSpec) -> None:
        self._run, self._observe = run, observe
        self._network = run.progress.network
        self._takes = _takes(sites(self._network.placed), observe)
        self._batches: list[Tensor] | None = None
        named = list(self._network.named_parameters())
        self._parameters = [(_owner(self._network, name), one) for name, one in named]
        self._affine = [(name, one) for name, one in named if name.rpartition(".")[2] in ("gamma", "beta")]
        self._norms: tuple[list[str], Tensor] | None = None

    @classmethod
    def of(cls, run: Run) -> "Observer | None":
        return None if run.spec.observe is None else cls(run, run.spec.observe)

    def due(self, step: int) -> bool:
        return step == FIRST_STEP or step % self._observe.every == 0

    @torch.no_grad()
    def see_gradients(self) -> None:
        """Those of the step that is being taken, before they are clipped."""
        if "gradient_norm" in self._observe.record:
            found = [(owner, one.grad) for owner, one in self._parameters if one.grad is not None]
            norms = torch._foreach_norm([gradient for _, gradient in found])
            self._norms = [owner for owner, _ in found], torch.stack(norms)

    def observe(self, step: int) -> None:
        """Records everything of `step`, whose update is made."""
        if self._takes:
            by_running_average = self._observe.statistics == "running_average"
            for name, reading in read(self._network, self._probe(), self._takes, by_running_average).items():
                self._record_reading(step, name, reading)
        if self._norms is not None:
            self._record_gradients(step, *self._norms)
        if self._affine and "affine" in self._observe.record:
            self._record_affine(step)

    def _record(self, step: int, place: str, figure: str, value: float) -> None:
        self._run.reporter.record(series_name(place, figure), step, value)

    def _record_reading(self, step: int, name: str, reading: Reading) -> None:
        for percentile, value in reading.percentiles.items():
            self._record(step, name, percentile_name(percentile), value)
        if reading.saturated is not None:
            self._record(step, name, "saturated", reading.saturated)
        if reading.dead is not None:
            self._record(step, name, "dead", reading.dead)
        if reading.moments is not None:
            self._record_drift(step, name, reading.moments)

    def _record_drift(self, step: int, name: str, now: Moments) -> None:
        """Against the observation before, which is in the checkpoint: none at the first one."""
        kept = self._run.progress.observed
        now = Moments(now.mean.cpu(), now.variance.cpu(), now.n)
        mean, variance = kept.get(f"{name}/mean"), kept.get(f"{name}/variance")
        if mean is not None and variance is not None:
            by_mean, by_deviation = shifts(Moments(mean, variance, now.n), now)
            self._record(step, name, "mean_shift", by_mean)
            self._record(step, name, "deviation_shift", by_deviation)
        kept[f"{name}/mean"], kept[f"{name}/variance"] = now.mean, now.variance

    def _record_gradients(self, step: int, owners: list[str], norms: Tensor) -> None:
        """The L2 norm over all parameters of each layer; those of an LSTM, its gammas and betas included, are one."""
        squares: dict[str, float] = {}
        for owner, norm in zip(owners, norms.double().tolist(), strict=True):
            squares[owner] = squares.get(owner, 0.0) + norm**2
        for owner, square in squares.items():
            self._record(step, owner, "gradient_norm", square**0.5)
        self._norms = None

    def _record_affine(self, step: int) -> None:
        found = self._affine
        values = torch.cat([one.detach().reshape(-1) for _, one in found]).cpu().double().numpy()
        sizes = np.array([one.numel() for _, one in found])
        starts = np.cumsum(sizes) - sizes
        figures = zip(
            (np.add.reduceat(values, starts) / sizes).tolist(),
            np.minimum.reduceat(values, starts).tolist(),
            np.maximum.reduceat(values, starts).tolist(),
            strict=True,
        )
        for (name, _), of_one in zip(found, figures, strict=True):
            place, _, part = name.rpartition(".")
            for figure, value in zip(("mean", "min", "max"), of_one, strict=True):
                self._record(step, place, f"{part}_{figure}", value)

    def _probe(self) -> list[Tensor]:
        if self._batches is None:
            widest = max(prod(item.output_shape) for item in flat(self._network.placed))
            self._batches = probe(self._run.data, self._observe, widest, self._run.spec.training.batch_size)
        return self._batches


def probe(data: Data, observe: ObserveSpec, widest: int, batch_size: int) -> list[Tensor]:
    """The scaled inputs of the rows that are observed: one batch, unless the maps that the widest layer makes of it are
    too many, then batches of as many rows as fit, at least `batch_size`. `widest`: values of these maps for one row."""
    split: Split | None = data.validation if observe.split == "validation" else data.test
    if split is None:
        raise ValueError("there is no validation split to observe on")  # admission has refused it
    rows = split.shuffled(derive_seed(observe.seed, "probe"))[: observe.rows]
    inputs, _ = split.gather(rows.sort().values)
    bounds = batch_bounds(len(inputs), max(batch_size, 2, LARGEST_MAP // widest), "merge")
    return [inputs[start:end] for start, end in bounds]


def _takes(found: tuple[Site, ...], observe: ObserveSpec) -> list[Take]:
    record = observe.record
    read_out = {site.name for site in with_percentiles(found, observe)} if "percentiles" in record else set()
    takes = []
    for site in found:
        saturates = "saturation" in record and site.activation in ("sigmoid", "tanh", "relu")
        take = Take(
            site,
            moments="drift" in record and site.moves,
            saturation=observe.saturation if saturates else None,
            percentiles=observe.percentiles if site.name in read_out else (),
            unit=observe.unit,
        )
        if take.moments or saturates or take.percentiles:
            takes.append(take)
    return takes


def _owner(network: Network, parameter: str) -> str:
    """The layer that a parameter is of: the longest that its name begins with."""
    names = (item.layer.name for item in flat(network.placed))
    return max((name for name in names if parameter.startswith(f"{name}.")), key=len)
