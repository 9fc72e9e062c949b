"""Optimizers, their parameter groups and learning-rate schedules."""

import math

import torch
from torch import Tensor

from bn_models.networks import Network
from core.spec import OptimizerSpec, ScheduleSpec
from core.spec.layers import (
    LSTM,
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    Parallel,
    Residual,
    Whitening,
)
from core.spec.normalization import AffineOptions, BatchOptions
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


def build_optimizer(network: Network, spec: OptimizerSpec) -> torch.optim.Optimizer:
    """torch's optimizer, in its fused form: one call for all parameters, and on CUDA one that a flag
    on the device can stop (see `loop`)."""
    groups = parameter_groups(network, spec)
    if isinstance(spec, SGDSpec):
        return torch.optim.SGD(groups, spec.learning_rate, spec.momentum, nesterov=spec.nesterov, fused=True)
    kind = torch.optim.AdamW if isinstance(spec, AdamWSpec) else torch.optim.Adam
    return kind(groups, spec.learning_rate, (spec.beta1, spec.beta2), spec.eps, fused=True)


MULTIPLIER = "multiplier"
"""The key of a parameter group for its factor on the learning rate."""


def parameter_groups(network: Network, spec: OptimizerBase) -> list[dict[str, object]]:
    """One group for each pair of weight decay and factor on the learning rate that occurs.

    Biases, gamma and beta decay only if the optimizer's spec says so; the options of a normalization
    may set the decay of its own gamma and beta, and their factor.
    """
    options = normalization_options(network.layers)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        owner, _, kind = name.rpartition(".")
        if owner in options:
            own = options[owner]
            decay = spec.weight_decay if spec.decay_normalization else 0.0
            key = (decay if own.weight_decay is None else own.weight_decay, own.learning_rate_multiplier)
        else:
            key = (spec.weight_decay if spec.decay_biases or kind != "bias" else 0.0, 1.0)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr": spec.learning_rate * multiplier, MULTIPLIER: multiplier}
        for (decay, multiplier), parameters in groups.items()
    ]


def normalization_options(layers: tuple[Layer, ...]) -> dict[str, AffineOptions]:
    """The options that rule over gamma and beta, by what their names begin with."""
    found: dict[str, AffineOptions] = {}
    for layer in layers:
        match layer:
            case Residual():
                found |= normalization_options(layer.body) | normalization_options(layer.shortcut)
            case Parallel():
                for branch in layer.branches:
                    found |= normalization_options(branch)
            case LSTM(batch_norm=BatchOptions() as options):
                found |= {f"{layer.name}.{norm}": options for norm in ("input_norm", "hidden_norm", "cell_norm")}
            case BatchNorm() | Whitening() | LayerNorm() | GroupNorm() | InstanceNorm():
                found[layer.name] = layer.options
            case _:
                pass
    return found


def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """Global L2 norm, on the gradients' device."""
    # What get_total_norm does, without a third of its cost for sorting tensors by device.
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def clip_gradients(gradients: list[Tensor], norm: Tensor, maximum: float) -> None:
    """Scales the gradients down to the global norm `maximum` when `norm`, their own, is longer.

    As torch.nn.utils.clip_grads_with_norm_: a factor of 1 otherwise, which needs no wait for a GPU.
    """
    torch._foreach_mul_(gradients, torch.clamp(maximum / (norm + 1e-6), max=1.0))
