import pytest
import torch

from bn_models.architecture import layers_of
from bn_models.guard import RunningGuard
from bn_models.networks import build
from bn_models.normalization import normalizations
from core.spec import BatchNormSpec, InitializationSpec, MLPSpec
from core.spec.normalization import WhiteningSpec

SPECS = [
    BatchNormSpec(),
    BatchNormSpec(virtual_batch_size=4),
    BatchNormSpec(momentum=None),
    WhiteningSpec(group_size=4),
]
IDS = ["batch norm", "ghost batches", "cumulative average", "whitening"]
BY = [lambda guard: guard.restore(), lambda guard: guard.restore_where(torch.tensor(True))]


@pytest.fixture(params=SPECS, ids=IDS)
def network(request):
    layers = layers_of(MLPSpec(hidden=(6, 5)), request.param, (7,), 3)
    network = build(layers, (7,), InitializationSpec(), seed=0)
    network(batch(0))
    return network


def batch(seed):
    return torch.randn(16, 7, generator=torch.Generator().manual_seed(seed)) + 1


def state_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("restore", BY, ids=["by the host", "by a flag"])
def test_a_poisoned_step_leaves_no_bit_in_the_running_averages(network, restore):
    guard, before = RunningGuard(network), state_of(network)

    guard.snapshot()
    network(torch.full((16, 7), float("nan")))
    assert not torch.isfinite(next(iter(normalizations(network).values())).running_mean).any()
    restore(guard)
    guard.settle()

    assert equal(state_of(network), before)


def test_a_step_that_is_sound_keeps_its_update(network):
    guard = RunningGuard(network)
    guard.snapshot()
    network(batch(1))
    after = state_of(network)

    guard.restore_where(torch.tensor(False))
    guard.settle()

    assert equal(state_of(network), after)


def test_steps_after_a_poisoned_one_are_those_of_a_run_without_it(network):
    sound = state_of(network)
    guard = RunningGuard(network)
    for x in (batch(1), torch.full((8, 7), float("inf")), batch(2), batch(3)[:9]):
        guard.snapshot()
        guard.restore_where(~torch.isfinite(network(x)).all())
    guard.settle()
    guarded = state_of(network)

    network.load_state_dict(sound)
    for x in (batch(1), batch(2), batch(3)[:9]):
        network(x)

    assert equal(state_of(network), guarded)


def test_the_guard_follows_buffers_that_a_move_replaces(network):
    guard = RunningGuard(network)
    guard.snapshot()
    network.double()
    before = state_of(network)

    guard.snapshot()
    network(torch.full((16, 7), float("nan"), dtype=torch.float64))
    guard.restore()

    assert equal(state_of(network), before)


def test_state_that_is_loaded_is_what_the_next_snapshot_keeps(network):
    guard = RunningGuard(network)
    guard.snapshot()
    other = state_of(network)
    network(batch(5))
    network.load_state_dict(other)

    guard.snapshot()
    network(torch.full((16, 7), float("nan")))
    guard.restore()

    assert equal(state_of(network), other)


def test_a_network_without_batch_norm_needs_no_guard():
    network = build(layers_of(MLPSpec(), None, (7,), 3), (7,), InitializationSpec(), seed=0)
    guard = RunningGuard(network)

    guard.snapshot()
    guard.restore()
    guard.restore_where(torch.tensor(True))
    guard.settle()
