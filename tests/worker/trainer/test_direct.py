"""Passes written by hand against autograd: the same bits, whatever the network, the batch and the optimizer."""

from typing import Any, get_args

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bn_models.networks import Network, build
from core.spec import InitializationSpec, JobSpec
from core.spec.layers import Activation, ActivationKind, BatchNorm, Flatten, Layer, Linear
from core.spec.normalization import BatchOptions
from tests.worker.trainer.helpers import digits_spec
from worker.trainer.direct import DirectPasses
from worker.trainer.optimization import build_optimizer, clip_gradients, gradient_norm
from worker.trainer.step import AutogradPasses, Passes
from worker.trainer.update import Update

CPU = torch.device("cpu")
FEATURES = 6
OPTIMIZERS: list[dict[str, Any]] = [
    {"kind": "sgd"},
    {"kind": "sgd", "momentum": 0.9, "weight_decay": 0.01},
    {"kind": "sgd", "momentum": 0.9, "nesterov": True, "decay_biases": True, "weight_decay": 0.01},
    {"kind": "adam", "weight_decay": 0.01, "decay_normalization": True},
    {"kind": "adamw", "clip_norm": 0.5},
]


def batch_options() -> st.SearchStrategy[BatchOptions]:
    return st.builds(
        BatchOptions,
        momentum=st.sampled_from([0.1, 0.5, 1.0]),
        affine=st.sampled_from([True, False, "gamma", "beta"]),
        eps=st.sampled_from([1e-5, 1e-2]),
    )


@st.composite
def lists(draw: st.DrawFn) -> tuple[Layer, ...]:
    """Layers in any order, with a linear one at the end."""
    layers: list[Layer] = [Flatten(name="flatten")] if draw(st.booleans()) else []
    for position in range(draw(st.integers(0, 6))):
        kind, name = draw(st.sampled_from(["linear", "batch_norm", "activation"])), f"layer{position}"
        if kind == "linear":
            layers.append(Linear(name=name, features=draw(st.integers(1, 9)), bias=draw(st.booleans())))
        elif kind == "batch_norm":
            layers.append(BatchNorm(name=name, options=draw(batch_options())))
        else:
            layers.append(Activation(name=name, kind=draw(st.sampled_from(get_args(ActivationKind)))))
    return (*layers, Linear(name="output", features=3, bias=draw(st.booleans())))


def autograd(network: Network, smoothing: float) -> Passes:
    return AutogradPasses(list(network.parameters()), network, smoothing, None)


def trained(network: Network, passes: Passes, batches: list[tuple[Tensor, Tensor]], spec: JobSpec) -> list[Tensor]:
    """All that 50 steps leave behind: losses, norms, weights, running averages, the optimizer's state."""
    optimizer = build_optimizer(network, spec.optimizer)
    update, left = Update(optimizer, CPU), []
    for step in range(50):
        loss = passes.forward(*batches[step % len(batches)])
        gradients = passes.backward()
        norm = gradient_norm(gradients)
        if spec.optimizer.clip_norm is not None:
            clip_gradients(gradients, norm, spec.optimizer.clip_norm)
        update(0.05 / (1 + step))
        left += [loss.clone(), norm, passes.outputs.clone()]
    state = [value for one in optimizer.state.values() for value in one.values() if isinstance(value, Tensor)]
    return [*left, *network.state_dict().values(), *state]


def batches_of(shape: tuple[int, ...], classes: bool, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Two of twelve rows and one of seven, as the last batch of an epoch may be."""
    generator = torch.Generator().manual_seed(seed)

    def targets(rows: int) -> Tensor:
        return torch.randint(0, 3, (rows,), generator=generator) if classes else torch.rand(rows, generator=generator)

    return [(torch.randn(rows, *shape, generator=generator), targets(rows)) for rows in (12, 12, 7)]


def assert_equal_bits(layers: tuple[Layer, ...], optimizer: dict[str, Any], smoothing: float, classes: bool = True):
    spec = JobSpec.model_validate(digits_spec(optimizer=optimizer))
    ends = []
    for passes_of in (autograd, DirectPasses):
        network = build(layers, (FEATURES,), InitializationSpec(), seed=1)
        network.train()
        batches = batches_of((FEATURES,), classes, seed=2)
        ends.append(trained(network, passes_of(network, smoothing), batches, spec))
    assert len(ends[0]) == len(ends[1])
    for expected, found in zip(*ends, strict=True):
        assert torch.equal(expected.nan_to_num(), found.nan_to_num())


@settings(max_examples=40, deadline=None)
@given(layers=lists(), optimizer=st.sampled_from(OPTIMIZERS), smoothing=st.sampled_from([0.0, 0.1]))
def test_fifty_steps_by_hand_have_the_bits_of_fifty_by_autograd(
    layers: tuple[Layer, ...], optimizer: dict[str, Any], smoothing: float
):
    assert_equal_bits(layers, optimizer, smoothing)
