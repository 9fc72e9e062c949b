"""What a step computes, whichever way its passes are made, and what it leaves alone."""

from typing import Any

import pytest
import torch

from bn_models.architecture import layers_of
from bn_models.export import weights_digest
from bn_models.networks import Network, build
from core.spec import JobSpec
from tests.worker.trainer.helpers import digits_spec
from worker.trainer.layout import arrange
from worker.trainer.step import AutogradPasses, InPlace, passes_for

CPU = torch.device("cpu")
NETWORKS: dict[str, dict[str, Any]] = {
    "convnet": {"family": "convnet", "channels": [4, 8], "hidden": [8]},
    "resnet": {"family": "resnet", "blocks": [1, 1], "width": 4},
    "inception": {"family": "inception"},
}


def spec_of(name: str, **changes: Any) -> JobSpec:
    return JobSpec.model_validate(digits_spec(network=NETWORKS[name], **changes))


def network_of(spec: JobSpec) -> Network:
    facts = spec.dataset.facts
    layers = layers_of(spec.network, spec.batch_norm, facts.input_shape, facts.outputs)
    network = build(layers, facts.input_shape, spec.network.initialization, seed=0)
    arrange(network, CPU, spec.training)
    return network


def batch(rows: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(rows, 1, 8, 8, generator=generator), torch.randint(0, 10, (rows,), generator=generator)


@pytest.mark.parametrize("name", NETWORKS)
def test_relus_in_place_change_no_bit(name: str):
    plain, in_place = network_of(spec_of(name)), network_of(spec_of(name))
    ways = (
        AutogradPasses([*plain.parameters()], plain, 0.0, None),
        AutogradPasses([*in_place.parameters()], InPlace(in_place), 0.0, None),
    )
    inputs, targets = batch()
    before = inputs.clone()

    losses = [passes.forward(inputs, targets) for passes in ways]
    expected, found = (passes.backward() for passes in ways)

    assert torch.equal(*losses) and torch.equal(inputs, before)
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


def test_outside_of_a_step_relus_leave_what_they_are_given():
    network = network_of(spec_of("convnet"))
    passes = AutogradPasses([*network.parameters()], InPlace(network), 0.0, None)

    passes.forward(*batch())

    assert not any(getattr(module, "inplace", False) for module in network.modules())


@pytest.mark.parametrize("name", ["convnet", "resnet"])
def test_passes_by_hand_have_autograd_s_bits_on_families(name: str):
    spec = spec_of(name)
    networks = [network_of(spec), network_of(spec)]
    by_hand = passes_for(networks[0], spec, CPU, networks[0])
    autograd = AutogradPasses([*networks[1].parameters()], networks[1], 0.0, None)
    assert not isinstance(by_hand, AutogradPasses)

    losses = [passes.forward(*batch()) for passes in (by_hand, autograd)]
    found, expected = by_hand.backward(), autograd.backward()

    assert torch.equal(*losses)
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))
    assert all(torch.equal(*pair) for pair in zip(*(n.state_dict().values() for n in networks), strict=True))


def test_bf16_is_autograd_s():
    spec = spec_of("convnet", training={"precision": "bf16"})
    network = network_of(spec)

    passes = passes_for(network, spec, CPU, network)
    loss = passes.forward(*batch())
    gradients = passes.backward()

    assert isinstance(passes, AutogradPasses)
    assert loss.dtype == passes.outputs.dtype == torch.float32
    assert {gradient.dtype for gradient in gradients} == {torch.float32}


def test_the_layout_of_weights_is_no_part_of_their_digest():
    spec = spec_of("resnet")
    arranged = network_of(spec)
    facts = spec.dataset.facts
    layers = layers_of(spec.network, spec.batch_norm, facts.input_shape, facts.outputs)
    plain = build(layers, facts.input_shape, spec.network.initialization, seed=0)

    strides = [parameter.stride() for parameter in arranged.parameters()]

    assert strides != [parameter.stride() for parameter in plain.parameters()]
    assert weights_digest(arranged.state_dict()) == weights_digest(plain.state_dict())
