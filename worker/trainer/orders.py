"""The rows of each epoch in their order, and where its batches are cut: `core.spec.order`, from the seed alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from bn_models.architecture import batch_bounds
from bn_models.randomness import derive_seed
from core.errors import JobFailed
from core.spec import TrainingSpec
from core.spec.order import ByShard, ClassPerBatch, ClassSorted, FixedBatches
from worker.trainer.data import Split

Bounds = tuple[tuple[int, int], ...]
Epoch = tuple[Tensor, Bounds]
"""Rows for `Split.gather`, and (start, end) of each batch in them; of every epoch as many batches."""


def epochs_of(split: Split, training: TrainingSpec) -> Callable[[int], Epoch]:
    """The epochs by number, from 0 on. Raises JobFailed("invalid_data") when no class fills a batch of its own."""
    bounds = batch_bounds(len(split), training.batch_size, training.tail)

    def seed_of(epoch: int) -> int:
        return derive_seed(training.seed, "order", epoch)

    match training.order:
        case FixedBatches():
            fixed = split.shuffled(seed_of(0))
            return lambda _: (fixed, bounds)
        case ClassSorted():
            return lambda epoch: (_by_class(split, seed_of(epoch)), bounds)
        case ClassPerBatch():
            cuts = _cuts_of_classes(split, training)
            return lambda epoch: (_by_class(split, seed_of(epoch)), _mixed(cuts, seed_of(epoch)))
        case ByShard(shards=shards):
            return lambda epoch: (_by_shard(split, shards, seed_of(epoch)), bounds)
        case _:
            return lambda epoch: (split.shuffled(seed_of(epoch)), bounds)


def _by_class(split: Split, seed: int) -> Tensor:
    """A shuffled order, brought together class by class."""
    order = split.shuffled(seed)
    return order[torch.argsort(split.targets[order], stable=True)]


def _cuts_of_classes(split: Split, training: TrainingSpec) -> Bounds:
    """Batches of one class each in an order by class; a class that has one row only is left out."""
    own = split.targets if split.rows is None else split.targets[split.rows]
    cuts: list[tuple[int, int]] = []
    first = 0
    for count in torch.bincount(own).tolist():
        tail = training.tail if count >= training.batch_size else "merge"
        cuts += [
            (first + start, first + end)
            for start, end in batch_bounds(count, training.batch_size, tail)
            if end - start > 1
        ]
        first += count
    if not cuts:
        raise JobFailed(
            "invalid_data", "training.order class_per_batch: no class has two training rows; use another order"
        )
    return tuple(cuts)


def _mixed(cuts: Bounds, seed: int) -> Bounds:
    generator = torch.Generator().manual_seed(derive_seed(seed, "batches"))
    return tuple(cuts[place] for place in torch.randperm(len(cuts), generator=generator).tolist())


def _by_shard(split: Split, shards: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    device = split.targets.device
    rows = torch.arange(len(split), device=device) if split.rows is None else split.rows
    parts = torch.tensor_split(rows, shards)
    order = torch.randperm(shards, generator=generator).tolist()
    return torch.cat([_permuted(parts[place], generator) for place in order])


def _permuted(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
