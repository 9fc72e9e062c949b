import torch

from bn_models.randomness import derive_seed
from core.spec import TrainingSpec
from worker.trainer.batches import Batches
from worker.trainer.data import Split


def split_of(rows: int) -> Split:
    return Split(torch.arange(rows).float()[:, None], torch.arange(rows), None, None)


def test_an_epoch_has_every_row_once_in_the_order_of_its_seed():
    batches = Batches(split_of(10), TrainingSpec(batch_size=4, seed=3))

    epoch = torch.cat([batches.of(step)[1] for step in (1, 2, 3)])

    order = torch.randperm(10, generator=torch.Generator().manual_seed(derive_seed(3, "order", 0)))
    assert torch.equal(epoch, order)
    assert not torch.equal(epoch, torch.cat([batches.of(step)[1] for step in (4, 5, 6)]))
    assert batches.epoch == 1


def test_a_step_has_the_same_batch_whatever_came_before():
    training = TrainingSpec(batch_size=4, seed=3)

    assert torch.equal(Batches(split_of(10), training).of(5)[0], Batches(split_of(10), training).of(5)[0])


def test_the_sizes_of_batches_are_known_before():
    assert Batches(split_of(10), TrainingSpec(batch_size=4)).sizes == (4, 2)
    assert Batches(split_of(9), TrainingSpec(batch_size=4)).sizes == (4, 5)  # a single row joins the batch before it
    assert Batches(split_of(10), TrainingSpec(batch_size=4, tail="drop")).sizes == (4,)
