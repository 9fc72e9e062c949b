"""How far are population statistics from the truth, by our estimators and by the common library routines?

    python -m benchmarks.estimators [--images 4000]

Two kinds of data, each a batch norm's input whose moments are known because all of it is at hand:

  offsets   maps of 8×8 whose pixels vary by 0.3 around an offset of the image, which varies by 1 from
            image to image; in batches of 2, so that most of the variance lies between batches
  far mean  maps of mean 1000 and deviation 0.1, in batches of 50: what float32 sums of squares can not hold

The two library routines are written here from their description, in float32 as they compute:

  fvcore update_bn_stats   each batch's mean and variance (times (m−1)/m of the unbiased one), pooled as
                           E[x²] − E[x]², weighted by the values of the batch
  swa_utils update_bn      the unweighted mean over batches of the mean and of the unbiased variance
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bn_models.moments import BatchMean, ChanMerge, moments_of
from bn_models.normalization import BatchNorm
from core.spec.normalization import BatchOptions

CHANNELS, SIDE = 4, 8
Estimate = tuple[float, float]  # largest error over the channels: of the mean in deviations, of the variance as a share


@dataclass(frozen=True)
class Data:
    name: str
    values: Tensor  # float32 (images, C, H, W)
    batch_size: int

    def batches(self) -> Iterator[Tensor]:
        return iter(self.values.split(self.batch_size))


def offsets(images: int) -> Data:
    generator = torch.Generator().manual_seed(0)
    between = torch.randn(images, CHANNELS, 1, 1, generator=generator)
    within = 0.3 * torch.randn(images, CHANNELS, SIDE, SIDE, generator=generator)
    return Data("offsets, batch 2", between + within, 2)


def far_mean(images: int) -> Data:
    generator = torch.Generator().manual_seed(1)
    return Data("mean 1000, sd 0.1", 1000 + 0.1 * torch.randn(images, CHANNELS, SIDE, SIDE, generator=generator), 50)


def ours(total: ChanMerge | BatchMean, data: Data) -> tuple[Tensor, Tensor]:
    layer = BatchNorm(CHANNELS, BatchOptions())
    for batch in data.batches():
        total.add(moments_of(layer, batch))
    mean, variance, _ = total.result()
    return mean, variance


def running_average(data: Data) -> tuple[Tensor, Tensor]:
    layer = BatchNorm(CHANNELS, BatchOptions())
    for batch in data.batches():
        layer(batch)
    return layer.running_mean, layer.running_var


def update_bn_stats(data: Data) -> tuple[Tensor, Tensor]:
    """Of every batch what a momentum of 1 leaves in the buffers; moments of all by E[x²] − E[x]²."""
    values, means, squares = 0, torch.zeros(CHANNELS), torch.zeros(CHANNELS)
    for batch in data.batches():
        m = batch.numel() // CHANNELS
        mean, unbiased = batch.mean((0, 2, 3)), batch.var((0, 2, 3))
        values += m
        means += (mean - means) * (m / values)
        squares += (unbiased * ((m - 1) / m) + mean.square() - squares) * (m / values)
    return means, squares - means.square()


def update_bn(data: Data) -> tuple[Tensor, Tensor]:
    """Running averages without momentum, reset before: each batch counts alike."""
    means, variances = zip(*((batch.mean((0, 2, 3)), batch.var((0, 2, 3))) for batch in data.batches()), strict=True)
    return torch.stack(means).mean(0), torch.stack(variances).mean(0)


ESTIMATORS: dict[str, Callable[[Data], tuple[Tensor, Tensor]]] = {
    "pooled (and pooled_sequential)": lambda data: ours(ChanMerge(), data),
    "algorithm_2": lambda data: ours(BatchMean(), data),
    "running_average": running_average,
    "fvcore update_bn_stats": update_bn_stats,
    "swa_utils update_bn": update_bn,
}


def error(data: Data, estimate: tuple[Tensor, Tensor]) -> Estimate:
    exact = data.values.double()
    mean, variance = exact.mean((0, 2, 3)), exact.var((0, 2, 3), correction=0)
    by_mean = ((estimate[0].double() - mean).abs() / variance.sqrt()).max()
    by_variance = ((estimate[1].double() - variance).abs() / variance).max()
    return float(by_mean), float(by_variance)


def measured(images: int) -> dict[str, dict[str, Estimate]]:
    """By kind of data and estimator."""
    return {
        data.name: {name: error(data, estimate(data)) for name, estimate in ESTIMATORS.items()}
        for data in (offsets(images), far_mean(images))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="errors of population statistics, ours and the libraries'")
    parser.add_argument("--images", type=int, default=4000)
    table = measured(parser.parse_args().images)
    for kind, rows in table.items():
        print(f"\n{kind:<32}{'mean off by':>16}{'variance off by':>18}")
        for name, (mean, variance) in rows.items():
            print(f"{name:<32}{mean:>12.1e} sd{100 * variance:>16.2g} %")


if __name__ == "__main__":
    main()
