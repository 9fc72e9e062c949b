"""How good a network is on a split: loss and accuracy, or loss, root mean square error and r²."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn import functional

from bn_models.architecture import batch_bounds
from bn_models.networks import Network, rows_at_once
from bn_models.normalization import batch_statistics, evaluation, normalizations
from bn_models.population import PopulationStatistics, using
from worker.trainer.data import Data, Split
from worker.trainer.reporting import Reporter

Scores = dict[str, float]
GapReport = dict[str, Scores]


def loss_of(outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits (N, classes), or mean squared error of scaled values (N, 1)."""
    if targets.dtype == torch.int64:
        return functional.cross_entropy(outputs, targets, label_smoothing=smoothing)
    return functional.mse_loss(outputs.squeeze(1), targets)


def evaluate(network: Network, data: Data, split: Split) -> Scores:
    """Scores of the network as it is served: dropout off, batch norm by its stored statistics, float32."""
    bounds = _chunks(network, split)
    return _scores(network, data, split, bounds, evaluation(network))


def gap_report(network: Network, data: Data, statistics: PopulationStatistics, batch_size: int) -> GapReport:
    """Test scores of one network under batch statistics, the running average and population statistics.

    `batch` is left out when the test split can not be cut into batches that have a variance.
    """
    split = data.test
    chunks = _chunks(network, split)
    batches = batch_bounds(len(split), batch_size, "merge")
    report = {
        "running_average": _scores(network, data, split, chunks, evaluation(network)),
        "population": _scores(network, data, split, chunks, using(network, statistics)),
    }
    if all(end - start > 1 for start, end in batches):
        report["batch"] = _scores(network, data, split, batches, batch_statistics(network))
    return report


def record_gap(reporter: Reporter, step: int, gap: GapReport) -> None:
    """Series `bn/<statistics>_<score>`, and `bn/gap_<score>`: under population minus under batch statistics."""
    for name, scores in gap.items():
        for score, value in scores.items():
            reporter.record(f"bn/{name}_{score}", step, value)
    if "batch" in gap:
        for score, value in gap["population"].items():
            reporter.record(f"bn/gap_{score}", step, value - gap["batch"][score])


def has_batch_norm(network: Network) -> bool:
    return bool(normalizations(network))


def _scores(
    network: Network,
    data: Data,
    split: Split,
    bounds: tuple[tuple[int, int], ...],
    mode: AbstractContextManager[None],
) -> Scores:
    with torch.inference_mode(), mode:
        if data.output_scaling is None:
            return _classification_scores(_outputs(network, split, bounds), len(split))
        return _regression_scores(_outputs(network, split, bounds), split, data.output_scaling.scale)


def _chunks(network: Network, split: Split) -> tuple[tuple[int, int], ...]:
    return batch_bounds(len(split), rows_at_once(network, split.inputs.device), "merge")


def _outputs(network: Network, split: Split, bounds: tuple[tuple[int, int], ...]) -> Iterator[tuple[Tensor, Tensor]]:
    for start, end in bounds:
        inputs, targets = split.between(start, end)
        yield network(inputs), targets


def _classification_scores(batches: Iterator[tuple[Tensor, Tensor]], rows: int) -> Scores:
    """Sums stay on the device until the end, in float64."""
    losses, correct = [], []
    for logits, targets in batches:
        losses.append(functional.cross_entropy(logits, targets, reduction="sum").double())
        correct.append((logits.argmax(1) == targets).sum())
    return {
        "loss": float(torch.stack(losses).sum()) / rows,
        "accuracy": float(torch.stack(correct).sum()) / rows,
    }


def _regression_scores(batches: Iterator[tuple[Tensor, Tensor]], split: Split, scale: float) -> Scores:
    """`loss` is of scaled values; `rmse` in the target's units; `r2` = 1 − SSE/SST, NaN for constant targets."""
    pairs = [(outputs.squeeze(1).double(), targets.double()) for outputs, targets in batches]
    values, targets = (torch.cat(part) for part in zip(*pairs, strict=True))
    errors = float((values - targets).square().sum())
    total = float((targets - targets.mean()).square().sum())
    loss = errors / len(split)
    return {"loss": loss, "rmse": math.sqrt(loss) * scale, "r2": 1.0 - errors / total if total > 0.0 else math.nan}
