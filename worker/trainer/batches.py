"""The batch of every step: epochs in the order that the spec asks for, cut where admission said, augmented."""

from torch import Tensor

from core.spec import TrainingSpec
from worker.trainer.augmentation import Augmentation
from worker.trainer.data import Split
from worker.trainer.orders import epochs_of


class Batches:
    def __init__(self, split: Split, training: TrainingSpec, augmentation: Augmentation | None = None) -> None:
        self._split = split
        self._augmentation = augmentation
        self._epoch_of = epochs_of(split, training)
        self.epoch = -1
        self._order, self._bounds = self._epoch_of(0)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The different numbers of rows that a batch can have, the usual one first."""
        sizes = [end - start for start, end in self._bounds]
        return tuple(sorted(set(sizes), key=lambda size: (-sizes.count(size), sizes.index(size))))

    def of(self, step: int) -> tuple[Tensor, Tensor]:
        """Scaled inputs and targets of `step`, counted from 1."""
        epoch, index = divmod(step - 1, len(self._bounds))
        if epoch != self.epoch:
            (self._order, self._bounds), self.epoch = self._epoch_of(epoch), epoch
        start, end = self._bounds[index]
        inputs, targets = self._split.gather(self._order[start:end])
        return inputs if self._augmentation is None else self._augmentation(inputs, step), targets

    def sample(self, rows: int) -> tuple[Tensor, Tensor]:
        """The first `rows` samples of the split, in its own order: to try something on."""
        return self._split.between(0, rows)
