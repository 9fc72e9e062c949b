"""What the frozen graph shows of its normalized layers is what the unfolded network has there."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bn_models.export import OutputScaling, reference, watching
from bn_models.networks import Network, build
from bn_models.normalization import normalizations
from bn_models.population import using
from core.spec import BatchNormSpec, InitializationSpec
from core.spec import layers as words
from core.spec.normalization import BatchOptions
from tests.bn_models.export.conftest import Frozen
from tests.bn_models.export.test_families import SCALING, build_network, frozen, probe

BEFORE, AFTER = (BatchNormSpec(placement=placement) for placement in ("before_activation", "after_activation"))


def watched(given: Frozen, chosen=None):
    arguments = given.receipt_arguments()
    content = given.write_onnx()
    return content, watching(content, *arguments[:3], reference(*arguments), chosen)


def refrozen(network: Network) -> Frozen:
    return Frozen(network, *frozen(network), SCALING, probe(network), "classification", OutputScaling(0.0, 1.0))


def run(content: bytes, outputs: list[str], rows: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(outputs, {"input": rows})


def inputs_of_layers(given: Frozen) -> dict[str, np.ndarray]:
    """What each batch norm gets of the probe rows, in float64."""
    network, found = given.network.double(), {}
    hooks = [
        layer.register_forward_hook(lambda _, given, __, name=name: found.update({name: given[0].numpy()}))
        for name, layer in normalizations(network).items()
    ]
    with torch.inference_mode(), using(network, given.statistics):
        network(torch.from_numpy(given.scaling.apply(given.probe_rows)))
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("family", ["mlp", "convnet"])
@pytest.mark.parametrize("batch_norm", [BEFORE, AFTER], ids=["before", "after"])
def test_moments_of_each_row_agree_with_an_independent_float64_computation(freeze, family, batch_norm) -> None:
    given = freeze(family, batch_norm)
    content, found = watched(given)

    means, squares = run(content + found.fragment, ["/watch/means", "/watch/squares"], given.probe_rows)

    exact = inputs_of_layers(given)
    assert [layer.name for layer in found.layers] == list(exact)
    assert found.left_out == {}
    place = 0
    for layer in found.layers:
        measured, x = given.statistics.layers[layer.name], exact[layer.name]
        per_channel = x.reshape(len(x), x.shape[1], -1)
        normalized = (per_channel - measured.mean[:, None]) / np.sqrt(measured.variance + 1e-5)[:, None]
        part = slice(place, place := place + layer.channels)
        np.testing.assert_allclose(means[:, part], normalized.mean(2), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(squares[:, part], np.square(normalized).mean(2), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["mlp", "convnet"])
def test_the_answers_have_the_same_bits_with_the_nodes_and_without(freeze, family) -> None:
    given = freeze(family, BEFORE)
    content, found = watched(given)
    onnx.checker.check_model(content + found.fragment, full_check=True)

    for count in (1, 7, 64):
        rows = given.probe_rows[:count]
        alone = run(content, ["logits", "probabilities"], rows)
        joined = run(content + found.fragment, ["logits", "probabilities"], rows)
        assert [array.tobytes() for array in alone] == [array.tobytes() for array in joined]


@pytest.mark.parametrize(
    ("family", "normalization", "layers", "left_out"),
    [
        ("resnet", "before", 6, 0),
        ("resnet", "after", 6, 0),
        ("inception", "before", 46, 0),
        ("convnet", "whitening-before", 3, 0),
        ("convnet", "whitening-after", 0, 3),
        ("recurrent", "before", 0, 2),
    ],
)
def test_every_family_shows_its_layers_or_says_which_it_can_not(family, normalization, layers, left_out) -> None:
    _, found = watched(refrozen(build_network(family, normalization)))

    assert (len(found.layers), len(found.left_out)) == (layers, left_out)
    assert bool(found.fragment) == bool(layers)
    assert all(reason for reason in found.left_out.values())


def test_a_gamma_of_zero_hides_its_channel(freeze) -> None:
    network = build_network("mlp", "before")
    first = next(iter(normalizations(network).values()))
    first.gamma.data[1] = 0.0

    content, found = watched(refrozen(network))

    assert [layer.blind for layer in found.layers] == [1, 0]
    (means,) = run(content + found.fragment, ["/watch/means"], probe(network))
    assert (means[:, 1] == 0.0).all()


def test_only_chosen_layers_are_shown(freeze) -> None:
    given = freeze("mlp", BEFORE)
    *_, last = normalizations(given.network)

    _, found = watched(given, (last,))

    assert [layer.name for layer in found.layers] == [last]


def test_a_value_that_folding_moved_something_past_is_not_taken_for_another(freeze) -> None:
    """A second batch norm behind a flattened first one: what stands in the graph before it lacks the first."""
    layers = (
        words.Conv2d(name="conv", channels=3, kernel_size=3),
        words.Activation(name="relu", kind="relu"),
        words.BatchNorm(name="first", options=BatchOptions()),
        words.Flatten(name="flat"),
        words.BatchNorm(name="second", options=BatchOptions()),
        words.Linear(name="out", features=3),
    )
    network = build(layers, (1, 6, 6), InitializationSpec(), seed=3)
    next(iter(normalizations(network).values())).beta.data += 0.7

    _, found = watched(refrozen(network))

    assert ([layer.name for layer in found.layers], list(found.left_out)) == (["first"], ["second"])
