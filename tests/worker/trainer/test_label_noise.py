import torch

from worker.trainer.data import Split
from worker.trainer.label_noise import with_noise

CLEAN = torch.arange(1000) % 10
SPLIT = Split(torch.zeros(1000, 1), CLEAN, torch.arange(0, 1000, 2), None)


def test_the_share_that_was_asked_for_gets_another_class_and_all_others_are_drawn_alike():
    noisy = with_noise(SPLIT, 0.4, 10, 3)

    changed = noisy.targets != CLEAN
    assert int(changed.sum()) == 200
    away = (noisy.targets - CLEAN)[changed] % 10
    assert set(away.tolist()) == set(range(1, 10))
    assert int(noisy.targets.max()) < 10


def test_rows_of_other_splits_and_the_tensor_that_was_given_stay_as_they_are():
    noisy = with_noise(SPLIT, 0.9, 10, 3)

    assert torch.equal(noisy.targets[1::2], CLEAN[1::2])
    assert torch.equal(SPLIT.targets, torch.arange(1000) % 10)


def test_the_same_seed_spoils_the_same_labels_and_another_seed_others():
    first, again, other = (with_noise(SPLIT, 0.2, 10, seed).targets for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_noise_is_the_split_itself():
    assert with_noise(SPLIT, 0.0, 10, 3) is SPLIT
