"""Members of one seed are pairs: what their variants share begins with the same bits, and sees the same rows."""

from pathlib import Path
from typing import Any

import torch

from api.comparisons import admit_comparison
from bn_models.architecture import layers_of
from bn_models.networks import Network, build
from core.settings import Settings
from core.spec import JobSpec
from worker.trainer.batches import Batches
from worker.trainer.data import Data, prepare
from worker.trainer.files import DataFolder

BASE = {
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [16, 8]},
    "training": {"steps": 50, "batch_size": 32},
}
VARY = {
    "variants": {
        "plain": {"batch_norm": False},
        "normalized": {"batch_norm": True},
        "after": {"batch_norm.placement": "after_activation"},
        "wider": {"network.hidden": [16, 12], "batch_norm": False},
        "fast": {"optimizer.learning_rate": 0.9, "batch_norm": False},
    }
}


def members() -> dict[tuple[str, int], JobSpec]:
    found = admit_comparison({"base": BASE, "vary": VARY, "seeds": [3, 4]}, Settings())
    return {(variant.variant.name, seed): spec for variant, seed, spec in found.members()}


def network(spec: JobSpec) -> Network:
    facts = spec.dataset.facts
    layers = layers_of(spec.network, spec.batch_norm, facts.input_shape, facts.outputs)
    return build(layers, facts.input_shape, spec.network.initialization, spec.training.seed)


def data(spec: JobSpec, folder: Path) -> Data:
    return prepare(spec.dataset, DataFolder(folder, None), torch.device("cpu"))


def rows(spec: JobSpec, folder: Path) -> list[Any]:
    batches = Batches(data(spec, folder).training, spec.training)
    return [batches.of(step) for step in (1, 2, 40, 90)]


def test_weights_of_the_same_name_and_shape_are_the_same_bits_and_others_of_another_seed() -> None:
    specs = members()
    plain = dict(network(specs["plain", 3]).named_parameters())
    for name in ("normalized", "after", "wider", "fast"):
        other = dict(network(specs[name, 3]).named_parameters())

        shared = [key for key in plain if key in other and plain[key].shape == other[key].shape]
        assert len(shared) >= 2
        assert all(torch.equal(plain[key], other[key]) for key in shared), name
    again = dict(network(specs["plain", 4]).named_parameters())
    assert not any(torch.equal(plain[key], again[key]) for key in plain if key.endswith("weight"))


def test_all_variants_of_a_seed_see_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    specs = members()
    expected = rows(specs["plain", 3], tmp_path)

    for name in ("normalized", "after", "wider", "fast"):
        for (inputs, targets), (other_inputs, other_targets) in zip(
            rows(specs[name, 3], tmp_path), expected, strict=True
        ):
            assert torch.equal(inputs, other_inputs)
            assert torch.equal(targets, other_targets)
    assert not torch.equal(rows(specs["plain", 4], tmp_path)[0][0], expected[0][0])


def test_all_members_share_one_split(tmp_path: Path) -> None:
    specs = members()

    splits = [data(spec, tmp_path).test for spec in (specs["plain", 3], specs["after", 4])]

    assert torch.equal(splits[0].targets, splits[1].targets)
    assert torch.equal(splits[0].inputs, splits[1].inputs)
