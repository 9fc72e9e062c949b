"""The batch of every step: epochs are seeded permutations, cut at the bounds that admission checked."""

import torch
from torch import Tensor

from bn_models.architecture import batch_bounds
from bn_models.randomness import derive_seed
from core.spec import TrainingSpec
from worker.trainer.data import Split


class Batches:
    def __init__(self, split: Split, training: TrainingSpec) -> None:
        self._split = split
        self._bounds = batch_bounds(len(split), training.batch_size, training.tail)
        self._seed = training.seed
        self.epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The different numbers of rows that a batch can have, the usual one first."""
        return tuple(dict.fromkeys(end - start for start, end in self._bounds))

    def of(self, step: int) -> tuple[Tensor, Tensor]:
        """Scaled inputs and targets of `step`, counted from 1."""
        epoch, index = divmod(step - 1, len(self._bounds))
        if epoch != self.epoch:
            self._order, self.epoch = self._split.shuffled(derive_seed(self._seed, "order", epoch)), epoch
        start, end = self._bounds[index]
        return self._split.gather(self._order[start:end])

    def sample(self, rows: int) -> tuple[Tensor, Tensor]:
        """The first `rows` samples of the split, in its own order: to try something on."""
        return self._split.between(0, rows)
