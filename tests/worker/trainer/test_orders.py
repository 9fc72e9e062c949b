"""Orders of training data, over a split of three classes whose input is its row's number."""

import itertools
from typing import Any

import pytest
import torch

from core.errors import JobFailed
from core.spec import TrainingSpec
from worker.trainer.batches import Batches
from worker.trainer.data import Split

CLASSES = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 2, 2, 0])  # five, four and four rows


def batches_of(order: Any, batch_size: int = 4, **training: Any) -> Batches:
    rows = torch.arange(len(CLASSES)).float()[:, None]
    return Batches(Split(rows, CLASSES, None, None), TrainingSpec(batch_size=batch_size, order=order, **training))


def epoch(batches: Batches, number: int, steps: int) -> list[list[int]]:
    found = [batches.of(number * steps + place + 1)[0].flatten().int().tolist() for place in range(steps)]
    assert batches.epoch == number
    return found


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def test_fixed_batches_are_those_of_the_first_shuffled_epoch_in_every_epoch():
    fixed, shuffled = batches_of("fixed_batches"), batches_of("shuffled")

    assert epoch(fixed, 0, 3) == epoch(fixed, 5, 3) == epoch(shuffled, 0, 3)
    assert epoch(shuffled, 5, 3) != epoch(shuffled, 0, 3)


def test_sorted_by_class_an_epoch_has_every_row_once_class_after_class_in_a_new_order_each():
    batches = batches_of("class_sorted")
    first, second = flat(epoch(batches, 0, 3)), flat(epoch(batches, 1, 3))

    assert sorted(first) == list(range(13))
    assert [int(CLASSES[row]) for row in first] == [0] * 5 + [1] * 4 + [2] * 4
    assert first != second
    assert sorted(first[:5]) == sorted(second[:5])


@pytest.mark.parametrize(("tail", "sizes"), [("merge", [4, 4, 5]), ("drop", [4, 4, 4])])
def test_a_class_a_batch_never_mixes_classes_and_mixes_the_batches(tail: str, sizes: list[int]):
    batches = batches_of("class_per_batch", tail=tail)
    epochs = [epoch(batches, number, 3) for number in range(8)]

    for found in epochs:
        assert all(len({int(CLASSES[row]) for row in batch}) == 1 for batch in found)
        assert sorted(map(len, found)) == sizes
    assert len({tuple(int(CLASSES[batch[0]]) for batch in found) for found in epochs}) > 1
    assert set(batches.sizes) == set(sizes)


def test_a_class_that_is_smaller_than_a_batch_is_a_batch_of_its_own_even_where_tails_are_dropped():
    found = epoch(batches_of("class_per_batch", batch_size=8, tail="drop"), 0, 3)

    assert sorted(map(len, found)) == [4, 4, 5]


def test_where_every_row_has_a_class_of_its_own_there_is_no_batch_of_a_class():
    split = Split(torch.zeros(3, 1), torch.arange(3), None, None)

    with pytest.raises(JobFailed, match="no class has two training rows"):
        Batches(split, TrainingSpec(batch_size=2, order="class_per_batch"))


def test_by_shard_an_epoch_takes_shard_after_shard_and_shuffles_within():
    batches = batches_of({"kind": "by_shard", "shards": 3})  # rows 0 to 4, 5 to 8, 9 to 12
    shards = [set(range(5)), set(range(5, 9)), set(range(9, 13))]
    orders = set()

    for number in range(8):
        rows = flat(epoch(batches, number, 3))
        assert sorted(rows) == list(range(13))
        places = [next(place for place, shard in enumerate(shards) if row in shard) for row in rows]
        orders.add(tuple(dict.fromkeys(places)))
        assert len(dict.fromkeys(places)) == sum(a != b for a, b in itertools.pairwise(places)) + 1
    assert len(orders) > 1


@pytest.mark.parametrize(
    "order", ["fixed_batches", "class_sorted", "class_per_batch", {"kind": "by_shard", "shards": 2}]
)
def test_a_step_has_the_same_rows_whatever_came_before(order: Any):
    walked = batches_of(order)
    for step in range(1, 8):
        walked.of(step)

    assert torch.equal(walked.of(8)[0], batches_of(order).of(8)[0])


def test_orders_are_of_the_rows_of_the_split_only():
    split = Split(torch.arange(13).float()[:, None], CLASSES, torch.tensor([1, 2, 4, 5, 7, 10]), None)
    for order in ("fixed_batches", "class_sorted", "class_per_batch", {"kind": "by_shard", "shards": 2}):
        batches = Batches(split, TrainingSpec(batch_size=3, order=order))
        rows = flat([batches.of(step)[0].flatten().int().tolist() for step in (1, 2)])
        assert sorted(rows) == [1, 2, 4, 5, 7, 10], order
