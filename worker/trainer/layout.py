"""How the elements of images lie in memory: channels last where that is faster.

It changes nothing but time: names, shapes, digests and files are of the logical tensors. The bits of a
convolution depend on it, so that the rule is fixed by the job and the device, and stands in the fingerprint.
"""

from typing import Any

import torch
from torch import Tensor, nn

from core.spec import TrainingSpec


def channels_last(device: torch.device, training: TrainingSpec) -> bool:
    """On a CPU always, where oneDNN's convolutions are made for it: 46 to 58 steps a second of the default
    convnet instead of 33. On a GPU for the tensor cores of bfloat16; float32 without TF32 has none of them."""
    return device.type == "cpu" or training.precision == "bf16"


def arrange(network: nn.Module, device: torch.device, training: TrainingSpec) -> None:
    """Moves `network` to `device`, its convolutions and their inputs channels-last where that is the rule."""
    network.to(device)
    if channels_last(device, training) and any(isinstance(module, nn.Conv2d) for module in network.modules()):
        network.to(memory_format=torch.channels_last)
        network.register_forward_pre_hook(_inputs_too)


def _inputs_too(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Else the maps of a first convolution on one channel, whose weights are of both formats, begin contiguous."""
    return tuple(_channels_last(value) for value in inputs)


def _channels_last(value: Tensor) -> Tensor:
    if value.dim() != 4:
        return value
    if value.shape[1] == 1:  # `contiguous` returns it as it is: one channel is of both formats
        height, width = value.shape[2:]
        return value.contiguous().as_strided(value.shape, (height * width, 1, width, 1))
    return value.contiguous(memory_format=torch.channels_last)
