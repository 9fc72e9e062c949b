import math

import pytest
import torch
from torch import nn

from bn_models.architecture import layers_of
from bn_models.networks import build
from core.spec import BatchNormSpec, InitializationSpec, MLPSpec
from core.spec.optimization import (
    AdamSpec,
    AdamWSpec,
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    SGDSpec,
    StepSchedule,
)
from worker.trainer.optimization import (
    build_optimizer,
    clip_gradients,
    gradient_norm,
    learning_rate,
    parameter_groups,
)


def rates(schedule: object, steps: int) -> list[float]:
    return [learning_rate(schedule, 1.0, step, steps) for step in range(1, steps + 1)]  # type: ignore[arg-type]


def test_a_constant_rate_stays():
    assert rates(ConstantSchedule(), 4) == [1.0] * 4


def test_warm_up_rises_linearly_to_the_base_rate():
    assert rates(ConstantSchedule(warmup_steps=4), 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_step_schedule_falls_each_time_its_steps_have_passed():
    assert rates(StepSchedule(every=2, factor=0.5), 6) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_cosine_begins_at_the_base_rate_and_ends_at_its_final_fraction():
    values = rates(CosineSchedule(final_fraction=0.2), 5)

    assert values == pytest.approx([0.2 + 0.8 * (1 + math.cos(math.pi * part / 4)) / 2 for part in range(5)])
    assert values[-1] == pytest.approx(0.2)


def test_cosine_after_warm_up_begins_at_its_end():
    values = rates(CosineSchedule(warmup_steps=3), 5)

    assert values == pytest.approx([1 / 3, 2 / 3, 1.0, 0.5, 0.0])


def test_exponential_has_equal_factors_and_ends_at_its_final_fraction():
    values = rates(ExponentialSchedule(final_fraction=0.01), 5)

    assert values == pytest.approx([1.0, 0.01**0.25, 0.1, 0.01**0.75, 0.01])


@pytest.mark.parametrize("schedule", [CosineSchedule(), ExponentialSchedule()])
def test_a_job_of_one_step_trains_at_the_base_rate(schedule: object):
    assert rates(schedule, 1) == [1.0]


def one_weight(value: float) -> nn.Module:
    module = nn.Module()
    module.weight = nn.Parameter(torch.full((1,), value))
    return module


def follow(optimizer: torch.optim.Optimizer, module: nn.Module, gradients: list[float]) -> list[float]:
    values = []
    for gradient in gradients:
        module.weight.grad = torch.full((1,), gradient)
        optimizer.step()
        values.append(module.weight.item())
    return values


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_momentum_and_weight_decay_follows_its_recursion(nesterov: bool):
    module = one_weight(2.0)
    spec = SGDSpec(learning_rate=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov)

    values = follow(build_optimizer(module, spec), module, [1.0, -0.5, 0.25])

    expected, weight, velocity = [], 2.0, 0.0
    for gradient in (1.0, -0.5, 0.25):
        decayed = gradient + 0.01 * weight
        velocity = 0.9 * velocity + decayed
        weight -= 0.1 * (decayed + 0.9 * velocity if nesterov else velocity)
        expected.append(weight)
    assert values == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", [AdamSpec, AdamWSpec])
def test_adam_follows_its_recursion_with_coupled_and_decoupled_decay(kind: type[AdamSpec]):
    module = one_weight(2.0)
    spec = kind(learning_rate=0.01, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1)

    values = follow(build_optimizer(module, spec), module, [1.0, -0.5, 0.25])

    expected, weight, first, second = [], 2.0, 0.0, 0.0
    for step, gradient in enumerate((1.0, -0.5, 0.25), start=1):
        if kind is AdamWSpec:
            weight -= 0.01 * 0.1 * weight
        else:
            gradient += 0.1 * weight
        first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient**2
        weight -= 0.01 * (first / (1 - 0.9**step)) / (math.sqrt(second / (1 - 0.99**step)) + 1e-8)
        expected.append(weight)
    assert values == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("normalization", "biases", "decaying"),
    [
        (False, False, {"weight"}),
        (True, False, {"weight", "gamma", "beta"}),
        (False, True, {"weight", "bias"}),
        (True, True, {"weight", "gamma", "beta", "bias"}),
    ],
)
def test_weight_decay_reaches_only_what_the_spec_says(normalization: bool, biases: bool, decaying: set[str]):
    layers = layers_of(MLPSpec(hidden=(5,)), BatchNormSpec(), (4,), 3)
    network = build(layers, (4,), InitializationSpec(), seed=0)
    spec = SGDSpec(weight_decay=0.5, decay_normalization=normalization, decay_biases=biases)

    groups = parameter_groups(network, spec)

    decayed = {id(parameter) for group in groups if group["weight_decay"] == 0.5 for parameter in group["params"]}
    names = {name.rpartition(".")[2] for name, parameter in network.named_parameters() if id(parameter) in decayed}
    assert names == decaying
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_clipping_scales_all_gradients_to_the_global_norm():
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([4.0])

    norm = gradient_norm(parameters)
    clip_gradients(parameters, norm, 1.0)

    assert norm.item() == pytest.approx(5.0)
    assert [parameter.grad.item() for parameter in parameters] == pytest.approx([0.6, 0.8], rel=1e-5)


def test_a_short_gradient_is_not_clipped():
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.tensor([0.5])

    clip_gradients([parameter], gradient_norm([parameter]), 1.0)

    assert parameter.grad.item() == 0.5
