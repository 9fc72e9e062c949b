"""How many jobs run at once."""

import os

from core.settings import Settings
from worker.slots import gpu_count, slot_count


def test_a_node_with_gpus_has_a_slot_for_each() -> None:
    assert slot_count(Settings(), gpus=4) == 4


def test_a_node_without_has_cores_by_threads() -> None:
    cores = len(os.sched_getaffinity(0))

    assert slot_count(Settings(threads_per_slot=1), gpus=0) == cores
    assert slot_count(Settings(threads_per_slot=10_000), gpus=0) == 1


def test_a_setting_wins() -> None:
    assert slot_count(Settings(slots=7), gpus=2) == 7


def test_gpus_are_counted_without_starting_cuda() -> None:
    assert gpu_count() >= 0
