"""How good a network is on a split: loss and accuracy, or loss, root mean square error and r²."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn import functional

from bn_models.architecture import batch_bounds
from bn_models.networks import Network, rows_at_once
from bn_models.normalization import evaluation, normalizations
from worker.trainer.data import Data, Split

Scores = dict[str, float]


def loss_of(outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits (N, classes), or mean squared error of scaled values (N, 1)."""
    if targets.dtype == torch.int64:
        return functional.cross_entropy(outputs, targets, label_smoothing=smoothing)
    return functional.mse_loss(outputs.squeeze(1), targets)


def evaluate(network: Network, data: Data, split: Split) -> Scores:
    """Scores of the network as it is served: dropout off, batch norm by its stored statistics, float32."""
    return scores_of(network, data, split, evaluation(network))


def scores_of(network: Network, data: Data, split: Split, mode: AbstractContextManager[None]) -> Scores:
    """Scores under `mode`, in chunks of rows that need no company of others."""
    return scores_under(network, data, split, _chunks(network, split), mode)


def outputs_under(network: Network, split: Split, mode: AbstractContextManager[None]) -> tuple[Tensor, Tensor]:
    """Outputs (N, …) and targets (N,) of a whole split under `mode`."""
    with torch.inference_mode(), mode:
        outputs, targets = zip(*_outputs(network, split, _chunks(network, split)), strict=True)
        return torch.cat(outputs), torch.cat(targets)


def has_statistics(network: Network) -> bool:
    """Is there a layer that normalizes by moments over samples?"""
    return bool(normalizations(network))


def scores_under(
    network: Network,
    data: Data,
    split: Split,
    bounds: tuple[tuple[int, int], ...],
    mode: AbstractContextManager[None],
) -> Scores:
    """Scores under `mode`, in batches of these bounds."""
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
