"""Passes written by hand against autograd: the same bits, whatever the network, the batch and the optimizer."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bn_models.architecture import layers_of
from bn_models.networks import Network, build
from core.spec import InitializationSpec, JobSpec
from core.spec.layers import (
    Activation,
    ActivationKind,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAveragePool2d,
    Layer,
    Linear,
    MaxPool2d,
    Residual,
)
from core.spec.normalization import BatchOptions
from tests.worker.trainer.helpers import digits_spec
from worker.trainer.direct import DirectPasses, is_direct
from worker.trainer.layout import arrange
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


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As a trainer has; threads that wait for one another on busy cores take minutes for this."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


def batch_options() -> st.SearchStrategy[BatchOptions]:
    return st.builds(
        BatchOptions,
        momentum=st.sampled_from([0.1, 0.5, 1.0, None]),
        virtual_batch_size=st.sampled_from([None, None, 3]),
        affine=st.sampled_from([True, False, "gamma", "beta"]),
        eps=st.sampled_from([1e-5, 1e-2]),
    )


@st.composite
def lists(draw: st.DrawFn) -> tuple[Layer, ...]:
    """Layers in any order, with a linear one at the end."""
    layers: list[Layer] = [Flatten(name="flatten")] if draw(st.booleans()) else []
    for position in range(draw(st.integers(0, 6))):
        kind, name = draw(st.sampled_from(["linear", "batch_norm", "activation", "dropout"])), f"layer{position}"
        if kind == "linear":
            layers.append(Linear(name=name, features=draw(st.integers(1, 9)), bias=draw(st.booleans())))
        elif kind == "batch_norm":
            layers.append(BatchNorm(name=name, options=draw(batch_options())))
        elif kind == "dropout":
            layers.append(Dropout(name=name, probability=0.3))
        else:
            layers.append(Activation(name=name, kind=draw(st.sampled_from(get_args(ActivationKind)))))
    return (*layers, Linear(name="output", features=3, bias=draw(st.booleans())))


def norm_or_relu(draw: st.DrawFn, name: str) -> Layer:
    if draw(st.booleans()):
        return BatchNorm(name=name, options=draw(batch_options()))
    return Activation(name=name, kind=draw(st.sampled_from(["relu", "sigmoid", "gelu"])))


@st.composite
def image_lists(draw: st.DrawFn) -> tuple[Layer, ...]:
    """Convolutions, pools and residual blocks on maps that keep their size, then a linear layer."""

    def conv(name: str, channels: int) -> Conv2d:
        return Conv2d(name=name, channels=channels, kernel_size=3, padding=1, bias=draw(st.booleans()))

    channels = draw(st.integers(2, 5))
    layers: list[Layer] = [norm_or_relu(draw, "first")] if draw(st.booleans()) else []
    layers.append(conv("stem", channels))
    for position in range(draw(st.integers(0, 4))):
        kind, name = draw(st.sampled_from(["conv", "other", "other", "residual", "pool"])), f"layer{position}"
        if kind == "conv":
            layers.append(conv(name, channels))
        elif kind == "other":
            layers.append(norm_or_relu(draw, name))
        elif kind == "pool":
            layers.append(MaxPool2d(name=name, kernel_size=3, stride=1, padding=1))
        else:
            bodies = [norm_or_relu(draw, f"{name}.{number}") for number in range(draw(st.integers(0, 2)))]
            body = draw(st.permutations([*bodies, conv(f"{name}.conv", channels)]))
            shortcut = [norm_or_relu(draw, f"{name}.short")] if draw(st.booleans()) else []
            layers.append(Residual(name=name, body=tuple(body), shortcut=tuple(shortcut)))
    head: Layer = GlobalAveragePool2d(name="head") if draw(st.booleans()) else Flatten(name="head")
    return (*layers, head, Linear(name="output", features=3))


def autograd(network: Network, smoothing: float) -> Passes:
    return AutogradPasses(list(network.parameters()), network, smoothing, None)


def trained(network: Network, passes: Passes, batches: list[tuple[Tensor, Tensor]], spec: JobSpec) -> list[Tensor]:
    """All that 50 steps leave behind: losses, norms, weights, running averages, the optimizer's state."""
    optimizer = build_optimizer(network, spec.optimizer)
    update, left = Update(optimizer, CPU), []
    for step in range(50):
        torch.default_generator.manual_seed(step)
        loss = passes.forward(*batches[step % len(batches)])
        gradients = passes.backward()
        norm = gradient_norm(gradients)
        if spec.optimizer.clip_norm is not None:
            clip_gradients(gradients, norm, spec.optimizer.clip_norm)
        update(0.05 / (1 + step))
        left += [loss.clone(), norm, passes.outputs.clone()]
    state = [value for one in optimizer.state.values() for value in one.values() if isinstance(value, Tensor)]
    return [*left, *network.state_dict().values(), *state]


def batches_of(
    shape: tuple[int, ...], classes: bool, seed: int, sizes: tuple[int, ...] = (12, 12, 7)
) -> list[tuple[Tensor, Tensor]]:
    """The last one smaller, as that of an epoch may be."""
    generator = torch.Generator().manual_seed(seed)

    def targets(rows: int) -> Tensor:
        return torch.randint(0, 3, (rows,), generator=generator) if classes else torch.rand(rows, generator=generator)

    return [(torch.randn(rows, *shape, generator=generator), targets(rows)) for rows in sizes]


def assert_equal_bits(
    layers: tuple[Layer, ...],
    optimizer: dict[str, Any],
    smoothing: float = 0.0,
    classes: bool = True,
    sizes: tuple[int, ...] = (12, 12, 7),
    frozen: str | None = None,
    shape: tuple[int, ...] = (FEATURES,),
) -> None:
    spec = JobSpec.model_validate(digits_spec(optimizer=optimizer))
    ends = []
    for passes_of in (autograd, DirectPasses):
        network = build(layers, shape, InitializationSpec(), seed=1)
        arrange(network, CPU, spec.training)
        network.train()
        if frozen is not None:
            network.get_submodule(frozen).freeze(100)
        ends.append(trained(network, passes_of(network, smoothing), batches_of(shape, classes, 2, sizes), spec))
    assert len(ends[0]) == len(ends[1])
    for expected, found in zip(*ends, strict=True):
        assert torch.equal(expected.nan_to_num(), found.nan_to_num())


@settings(max_examples=30, deadline=None)
@given(layers=lists(), optimizer=st.sampled_from(OPTIMIZERS), smoothing=st.sampled_from([0.0, 0.1]))
def test_fifty_steps_by_hand_have_the_bits_of_fifty_by_autograd(
    layers: tuple[Layer, ...], optimizer: dict[str, Any], smoothing: float
):
    assert_equal_bits(layers, optimizer, smoothing)


@settings(max_examples=15, deadline=None)
@given(layers=image_lists(), optimizer=st.sampled_from(OPTIMIZERS), channels=st.sampled_from([1, 3]))
def test_so_have_fifty_steps_on_images(layers: tuple[Layer, ...], optimizer: dict[str, Any], channels: int):
    assert_equal_bits(layers, optimizer, shape=(channels, 5, 4))


@pytest.mark.slow
@pytest.mark.timeout(600)  # 40 s of one processor, which other work may share
@settings(max_examples=300, deadline=None)
@given(layers=image_lists(), optimizer=st.sampled_from(OPTIMIZERS), channels=st.sampled_from([1, 3]))
def test_so_have_fifty_steps_on_images_of_any_list(layers: tuple[Layer, ...], optimizer: dict[str, Any], channels: int):
    assert_equal_bits(layers, optimizer, shape=(channels, 5, 4), sizes=(8, 5))


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=600, deadline=None)
@given(
    layers=lists(),
    optimizer=st.sampled_from(OPTIMIZERS),
    smoothing=st.sampled_from([0.0, 0.1]),
    sizes=st.sampled_from([(60, 60, 40), (200, 200, 7), (3, 3, 2)]),
)
def test_fifty_steps_by_hand_have_the_bits_of_fifty_by_autograd_at_any_size(
    layers: tuple[Layer, ...], optimizer: dict[str, Any], smoothing: float, sizes: tuple[int, ...]
):
    assert_equal_bits(layers, optimizer, smoothing, sizes=sizes)


DENSE = (
    Linear(name="first", features=8, bias=False),
    BatchNorm(name="norm", options=BatchOptions()),
    Activation(name="relu", kind="relu"),
)


def test_so_have_batches_whose_sums_are_long():
    assert_equal_bits((*DENSE, Linear(name="last", features=3)), OPTIMIZERS[1], sizes=(300, 129, 128))


def test_so_has_a_regression():
    assert_equal_bits((*DENSE, Linear(name="last", features=1)), OPTIMIZERS[3], classes=False)


def test_so_has_a_network_with_a_frozen_layer():
    assert_equal_bits((*DENSE, Linear(name="last", features=3)), OPTIMIZERS[1], frozen="norm")


@pytest.mark.parametrize(
    ("changes", "direct"),
    [
        ({}, True),
        ({"training": {"precision": "bf16"}}, False),
        ({"training": {"compile": True}}, False),
        ({"network": {"family": "convnet", "channels": [4]}}, True),
        ({"network": {"family": "resnet", "blocks": [1, 1]}}, True),
        ({"network": {"family": "recurrent"}}, False),
        ({"batch_norm": {"kind": "layer"}}, False),
        ({"batch_norm": False}, True),
    ],
)
def test_a_network_of_common_layers_in_float32_is_trained_by_hand(changes: dict[str, Any], direct: bool):
    spec = JobSpec.model_validate(digits_spec(**changes))
    layers = layers_of(spec.network, spec.batch_norm, (1, 8, 8), 10)
    network = build(layers, (1, 8, 8), spec.network.initialization, seed=0)

    assert is_direct(network, spec, CPU) == direct
    assert not is_direct(network, spec, torch.device("cuda"))
