"""Slots: how many jobs run at once on this node."""

import os

import pynvml

from core.settings import Settings


def gpu_count() -> int:
    """GPUs of this node, asked of the driver, so that this process never starts CUDA. 0 without a driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


def slot_count(settings: Settings, gpus: int) -> int:
    """As set; else one a GPU; else cores // threads, at least one."""
    if settings.slots is not None:
        return settings.slots
    return gpus or max(1, len(os.sched_getaffinity(0)) // settings.threads_per_slot)
