import math

import pytest
import torch
from torch import nn

from bn_models.architecture import layers_of
from bn_models.networks import Network, build
from core.spec import BatchNormSpec, InitializationSpec, MLPSpec, OptimizerSpec
from core.spec.layers import LSTM, BatchNorm, Linear, Residual
from core.spec.normalization import BatchOptions
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
    MULTIPLIER,
    build_optimizer,
    clip_gradients,
    gradient_norm,
    learning_rate,
    parameter_groups,
)
from worker.trainer.update import Update


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


def one_weight(value: float) -> Network:
    network = build((Linear(name="only", features=1, bias=False),), (1,), InitializationSpec(), seed=0)
    with torch.no_grad():
        network.only.weight.fill_(value)
    return network


def follow(optimizer: torch.optim.Optimizer, network: Network, gradients: list[float]) -> list[float]:
    """By the trainer's update, whose first one is the optimizer's own."""
    values, update = [], Update(optimizer, torch.device("cpu"))
    for gradient in gradients:
        network.only.weight.grad = torch.full((1, 1), gradient)
        update(optimizer.defaults["lr"])
        values.append(network.only.weight.item())
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
    gradients = [torch.tensor([3.0]), torch.tensor([4.0])]

    norm = gradient_norm(gradients)
    clip_gradients(gradients, norm, 1.0)

    assert norm.item() == pytest.approx(5.0)
    assert [gradient.item() for gradient in gradients] == pytest.approx([0.6, 0.8], rel=1e-5)


def test_a_short_gradient_is_not_clipped():
    gradients = [torch.tensor([0.5])]

    clip_gradients(gradients, gradient_norm(gradients), 1.0)

    assert gradients[0].item() == 0.5


def test_clipping_has_the_bits_of_torch_s_own():
    parameters = [nn.Parameter(torch.randn(7, 3)), nn.Parameter(torch.randn(5))]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    ours = [parameter.grad.clone() for parameter in parameters]

    clip_gradients(ours, gradient_norm(ours), 0.3)
    torch.nn.utils.clip_grad_norm_(parameters, 0.3)

    assert all(torch.equal(mine, parameter.grad) for mine, parameter in zip(ours, parameters, strict=True))


def test_gamma_and_beta_have_the_decay_and_the_factor_of_their_layer():
    batch_norm = BatchNormSpec(
        learning_rate_multiplier=0.5, layers={"hidden2*": {"weight_decay": 0.25, "learning_rate_multiplier": 0.0}}
    )
    network = build(layers_of(MLPSpec(hidden=(5, 5)), batch_norm, (4,), 3), (4,), InitializationSpec(), seed=0)

    groups = parameter_groups(network, SGDSpec(learning_rate=0.2, weight_decay=0.5))

    names = {parameter: name for name, parameter in network.named_parameters()}
    found = {
        (group["weight_decay"], group[MULTIPLIER], group["lr"]): {
            names[one].rpartition(".")[2] for one in group["params"]
        }
        for group in groups
    }
    assert found == {
        (0.5, 1.0, 0.2): {"weight"},
        (0.0, 1.0, 0.2): {"bias"},
        (0.0, 0.5, 0.1): {"gamma", "beta"},
        (0.25, 0.0, 0.0): {"gamma", "beta"},
    }


def test_the_norms_of_an_lstm_have_the_options_of_its_batch_norm():
    options = BatchOptions(learning_rate_multiplier=0.5)
    lstm = LSTM(name="lstm", units=4, batch_norm=options)
    network = build((lstm, Linear(name="out", features=2)), (3, 5), InitializationSpec(), seed=0)

    groups = parameter_groups(network, SGDSpec())

    names = {parameter: name for name, parameter in network.named_parameters()}
    slow = {names[one] for group in groups if group[MULTIPLIER] == 0.5 for one in group["params"]}
    norms = {f"lstm.{norm}.gamma" for norm in ("input_norm", "hidden_norm", "cell_norm")}
    assert slow == {*norms, "lstm.cell_norm.beta"}


def test_the_layers_inside_of_blocks_have_their_options_too():
    slow = BatchNorm(name="inner", options=BatchOptions(learning_rate_multiplier=0.5))
    block = Residual(name="block", body=(Linear(name="deep", features=4), slow))
    network = build((block, Linear(name="out", features=2)), (4,), InitializationSpec(), seed=0)

    groups = parameter_groups(network, SGDSpec())

    assert {group[MULTIPLIER]: len(group["params"]) for group in groups if group[MULTIPLIER] != 1.0} == {0.5: 2}


@pytest.mark.parametrize("kind", [SGDSpec(momentum=0.9), AdamSpec(), AdamWSpec()])
def test_a_factor_of_zero_keeps_gamma_and_beta_where_they_start(kind: OptimizerSpec):
    batch_norm = BatchNormSpec(learning_rate_multiplier=0.0, initial_gamma=2.0)
    network = build(layers_of(MLPSpec(hidden=(5,)), batch_norm, (4,), 3), (4,), InitializationSpec(), seed=0)
    update = Update(build_optimizer(network, kind), torch.device("cpu"))

    for _ in range(3):
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        update(0.1)

    ends = {name.rpartition(".")[2]: parameter for name, parameter in network.named_parameters()}
    assert torch.equal(ends["gamma"], torch.full((5,), 2.0)) and torch.equal(ends["beta"], torch.zeros(5))
    assert not torch.equal(ends["bias"], torch.zeros(3))
