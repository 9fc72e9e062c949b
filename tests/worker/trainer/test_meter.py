"""The meter for GPUs, on tensors of the CPU: the flag that holds back updates works there too."""

import math

import pytest
import torch
from torch import nn

from bn_models.guard import RunningGuard
from bn_models.networks import build
from core.errors import JobFailed
from core.spec import InitializationSpec
from core.spec.layers import BatchNorm, Linear
from core.spec.normalization import BatchOptions
from tests.worker.trainer.helpers import ListSink
from worker.trainer.meter import DeviceMeter, HostMeter
from worker.trainer.reporting import Reporter

CPU = torch.device("cpu")


def take_steps(losses: list[float], meter: DeviceMeter | HostMeter, optimizer: torch.optim.Optimizer) -> None:
    (parameter,) = optimizer.param_groups[0]["params"]
    for step, loss in enumerate(losses, start=1):
        meter.check(step, torch.tensor(loss))
        parameter.grad = torch.ones(1)
        optimizer.step()
        meter.record(step, 0.1, 4, torch.tensor(3), None)


def guard_of(network: nn.Module | None = None) -> RunningGuard:
    return RunningGuard(network or nn.Module())


def setup(kind: type) -> tuple[nn.Parameter, torch.optim.Optimizer, ListSink, Reporter]:
    parameter = nn.Parameter(torch.zeros(1))
    sink = ListSink()
    return parameter, kind([parameter], lr=1.0, fused=True), sink, Reporter(sink)


def test_metrics_stay_on_the_device_until_they_are_settled():
    _, optimizer, sink, reporter = setup(torch.optim.SGD)
    meter = DeviceMeter(optimizer, reporter, guard_of(), CPU)

    take_steps([2.0, 1.0], meter, optimizer)
    reporter.flush()
    assert sink.points == {}
    meter.settle()
    reporter.flush()

    assert sink.points == {
        "train/loss": {1: 2.0, 2: 1.0},
        "train/accuracy": {1: 0.75, 2: 0.75},
        "optimizer/learning_rate": {1: 0.1, 2: 0.1},
    }


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_no_update_is_made_from_the_first_loss_on_that_is_not_finite(kind: type):
    parameter, optimizer, sink, reporter = setup(kind)
    meter = DeviceMeter(optimizer, reporter, guard_of(), CPU)
    take_steps([2.0], meter, optimizer)
    before = parameter.item()

    take_steps([math.nan, 1.0, 1.0], meter, optimizer)
    with pytest.raises(JobFailed, match="the loss of step 1 is nan") as caught:
        meter.settle()
    reporter.flush()

    assert parameter.item() == before
    assert caught.value.code == "non_finite_loss"
    assert list(sink.points["train/loss"]) == [1]  # 1 again: its loss is recorded, those behind it are not
    assert math.isnan(sink.points["train/loss"][1])


def test_the_last_step_reported_is_the_one_before_the_loss_that_is_not_finite():
    _, optimizer, _, reporter = setup(torch.optim.SGD)
    meter = DeviceMeter(optimizer, reporter, guard_of(), CPU)
    take_steps([2.0, math.nan, math.nan], meter, optimizer)
    reporter.step = 3

    with pytest.raises(JobFailed, match="the loss of step 2 is nan"):
        meter.settle()

    assert reporter.step == 1


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_held_back_update_leaves_the_optimizer_s_state_too(kind: type):
    options = {"momentum": 0.9, "nesterov": True} if kind is torch.optim.SGD else {}
    parameter = nn.Parameter(torch.ones(3))
    optimizer = kind([parameter], lr=0.1, weight_decay=0.1, fused=True, **options)
    meter = DeviceMeter(optimizer, Reporter(ListSink()), guard_of(), CPU)
    meter.check(1, torch.tensor(1.0))
    parameter.grad = torch.ones(3)
    optimizer.step()
    before = [value.clone() for value in (parameter.detach(), *optimizer.state[parameter].values())]

    meter.check(2, torch.tensor(math.nan))
    parameter.grad = torch.full((3,), math.nan)
    optimizer.step()

    after = [parameter.detach(), *optimizer.state[parameter].values()]
    assert len(before) > 1
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_on_the_cpu_a_loss_that_is_not_finite_stops_at_once_and_is_recorded():
    parameter, optimizer, sink, reporter = setup(torch.optim.SGD)

    with pytest.raises(JobFailed, match="the loss of step 2 is inf"):
        take_steps([2.0, math.inf, 1.0], HostMeter(reporter, guard_of()), optimizer)
    reporter.flush()

    assert parameter.item() == -1.0
    assert sink.points["train/loss"] == {1: 2.0, 2: math.inf}


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_step_whose_loss_is_not_finite_leaves_the_running_averages_as_they_were(
    on_device: bool, momentum: float | None
):
    layers = (BatchNorm(name="norm", options=BatchOptions(momentum=momentum)), Linear(name="out", features=1))
    network = build(layers, (3,), InitializationSpec(), seed=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, fused=True)
    reporter, guard = Reporter(ListSink()), RunningGuard(network)
    meter = DeviceMeter(optimizer, reporter, guard, CPU) if on_device else HostMeter(reporter, guard)
    good, poisoned = torch.randn(8, 3), torch.full((8, 3), math.inf)

    def step(number: int, inputs: torch.Tensor) -> None:
        guard.snapshot()
        meter.check(number, network(inputs).sum())
        meter.record(number, 0.1, 8, None, None)

    step(1, good)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(JobFailed, match="step 2"):
        step(2, poisoned)
        step(3, good)  # a GPU is ahead of what is known here
        meter.settle()

    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
