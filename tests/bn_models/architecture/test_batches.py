from hypothesis import given
from hypothesis import strategies as st

from bn_models.architecture import batch_bounds

sizes = {"rows": st.integers(0, 500), "batch_size": st.integers(1, 70)}


def test_full_batches_follow_one_another():
    assert batch_bounds(9, 3, "merge") == ((0, 3), (3, 6), (6, 9))


def test_drop_leaves_an_incomplete_batch_out():
    assert batch_bounds(11, 3, "drop") == ((0, 3), (3, 6), (6, 9))


def test_merge_keeps_an_incomplete_batch_of_two():
    assert batch_bounds(8, 3, "merge") == ((0, 3), (3, 6), (6, 8))


def test_merge_gives_a_single_sample_to_the_batch_before():
    assert batch_bounds(10, 3, "merge") == ((0, 3), (3, 6), (6, 10))


def test_fewer_rows_than_a_batch_are_one_batch_or_none():
    assert batch_bounds(2, 3, "merge") == ((0, 2),)
    assert batch_bounds(2, 3, "drop") == ()


@given(**sizes)
def test_merged_batches_cover_every_row_once(rows, batch_size):
    bounds = batch_bounds(rows, batch_size, "merge")

    assert [row for start, end in bounds for row in range(start, end)] == list(range(rows))


@given(**sizes)
def test_only_batch_size_one_or_a_single_row_leaves_a_batch_of_one(rows, batch_size):
    smallest = min((end - start for start, end in batch_bounds(rows, batch_size, "merge")), default=2)

    assert smallest >= 2 or batch_size == 1 or rows == 1
