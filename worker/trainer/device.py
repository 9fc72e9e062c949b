"""Where a trainer computes, and all that decides its bits."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch

from core.errors import JobFailed
from core.spec import JobSpec, ResourcesSpec
from worker.trainer.compiling import compiler
from worker.trainer.layout import channels_last


def choose(resources: ResourcesSpec, gpu: int | None = None) -> torch.device:
    """The device of a job; `auto` and `cuda` are the GPU of the slot, the first one without; `auto` is else the CPU.

    Raises JobFailed when the job asks for a GPU that is not here.
    """
    if resources.device == "cpu":
        return torch.device("cpu")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if resources.device == "auto":
        return torch.device("cuda", gpu or 0) if gpus else torch.device("cpu")
    device = torch.device(resources.device)
    index = device.index if device.index is not None else gpu or 0
    if index >= gpus:
        message = f"resources.device is {resources.device!r}, and this worker sees {gpus} GPUs: use 'auto' or 'cpu'"
        raise JobFailed("internal", message)
    return torch.device("cuda", index)


@contextmanager
def numerics(resources: ResourcesSpec, gpu: int | None = None) -> Iterator[torch.device]:
    """The device, with threads and determinism set as the spec says; these and the generator are put back."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    benchmark, random_state = torch.backends.cudnn.benchmark, torch.default_generator.get_state()
    convolution = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    os.putenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, when CUDA starts; nothing is deterministic without
    device = choose(resources, gpu)
    try:
        torch.set_num_threads(resources.threads)
        if device.type == "cuda":
            torch.cuda.set_device(device)
            torch.use_deterministic_algorithms(resources.deterministic)
            torch.backends.cudnn.benchmark = not resources.deterministic
            # torch's default is TF32, with 10 bits of mantissa: neither `float32` nor what the served graph computes.
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        yield device
    finally:
        torch.set_num_threads(threads)
        torch.default_generator.set_state(random_state)
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.cudnn.conv.fp32_precision = convolution  # type: ignore[attr-defined]


def fingerprint(device: torch.device, spec: JobSpec) -> str:
    """What must be equal for a resumed run to give the same bits as an undisturbed one."""
    resources, training = spec.resources, spec.training
    parts = [f"torch={torch.__version__}", f"numpy={np.__version__}"]  # which merges what long sums are made of
    parts += [f"threads={resources.threads}", f"capability={_capability()}"]
    if channels_last(device, training):
        parts.append("layout=channels_last")
    if training.compile:
        parts.append(f"compiler={compiler() if device.type == 'cpu' else 'triton'}")
    if device.type == "cuda":
        parts += [f"cuda={torch.version.cuda}", f"cudnn={torch.backends.cudnn.version()}"]  # type: ignore[no-untyped-call]
        parts += [f"deterministic={resources.deterministic}"]
        return "; ".join([torch.cuda.get_device_name(device), *parts])
    return "; ".join([_processor(), *parts])


def generator_of(device: torch.device) -> torch.Generator:
    """The generator that dropout draws from. Seeding it directly costs 1 µs, `torch.manual_seed` 131 µs."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most memory that this process had at once: on the GPU, or resident on the CPU; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _peak_resident_bytes()


def _capability() -> str:
    return torch.backends.cpu.get_cpu_capability()


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _peak_resident_bytes() -> int | None:
    """VmHWM, which begins anew with each process; ru_maxrss would be inherited from the forkserver."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    peak = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak[0]) * 1024 if peak else None
