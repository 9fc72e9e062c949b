"""Optimizers, their parameter groups and learning-rate schedules."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bn_models.normalization import BatchNorm
from core.spec import OptimizerSpec, ScheduleSpec
from core.spec.optimization import (
    AdamWSpec,
    CosineSchedule,
    ExponentialSchedule,
    OptimizerBase,
    SGDSpec,
    StepSchedule,
)


def learning_rate(schedule: ScheduleSpec, base: float, step: int, steps: int) -> float:
    """The rate of update `step`, counted from 1, of a job of `steps` updates.

    With w warm-up steps it is base · step / w up to step w, where it reaches `base`; from there (from
    step 1 without warm-up) cosine and exponential fall to their share of `base` at the last step.
    """
    if step < schedule.warmup_steps:
        return base * step / schedule.warmup_steps
    top = max(schedule.warmup_steps, 1)
    progress = (step - top) / (steps - top) if steps > top else 0.0
    match schedule:
        case StepSchedule():
            return base * schedule.factor ** ((step - 1) // schedule.every)
        case CosineSchedule():
            final = schedule.final_fraction
            return base * (final + (1.0 - final) * (1.0 + math.cos(math.pi * progress)) / 2.0)
        case ExponentialSchedule():
            return base * float(schedule.final_fraction**progress)
        case _:
            return base


def build_optimizer(network: nn.Module, spec: OptimizerSpec) -> torch.optim.Optimizer:
    """torch's optimizer, in its fused form: one call for all parameters, and on CUDA one that a flag
    on the device can stop (see `loop`)."""
    groups = parameter_groups(network, spec)
    if isinstance(spec, SGDSpec):
        return torch.optim.SGD(groups, spec.learning_rate, spec.momentum, nesterov=spec.nesterov, fused=True)
    kind = torch.optim.AdamW if isinstance(spec, AdamWSpec) else torch.optim.Adam
    return kind(groups, spec.learning_rate, (spec.beta1, spec.beta2), spec.eps, fused=True)


def parameter_groups(network: nn.Module, spec: OptimizerBase) -> list[dict[str, object]]:
    """At most two groups, with and without weight decay: biases, gamma and beta decay only if the spec says so."""
    normalization = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, BatchNorm)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if id(parameter) in normalization:
            decays = spec.decay_normalization
        else:
            decays = spec.decay_biases or name.rpartition(".")[2] != "bias"
        groups.setdefault(spec.weight_decay if decays else 0.0, []).append(parameter)
    return [{"params": parameters, "weight_decay": decay} for decay, parameters in groups.items()]


def gradient_norm(parameters: Sequence[Tensor]) -> Tensor:
    """Global L2 norm of the gradients, on their device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    # What get_total_norm does, without a third of its cost for sorting tensors by device.
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def clip_gradients(parameters: Sequence[Tensor], norm: Tensor, maximum: float) -> None:
    """Scales the gradients down to the global norm `maximum` when `norm`, their own, is longer."""
    torch.nn.utils.clip_grads_with_norm_(parameters, maximum, norm)
