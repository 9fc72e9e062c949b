"""Comparison specs: what varies, which members that makes, and how they are named."""

from typing import Any

import pytest

from core.errors import SpecInvalid
from core.spec import ComparisonSpec, JobSpec
from core.spec.base import NAME
from core.spec.comparison import as_name, member_body, seeds_of
from core.spec.variation import Variant, put, variants_of

BASE: dict[str, Any] = {"dataset": {"source": "digits"}, "network": {"family": "mlp", "hidden": [8, 4]}}


def spec(**changes: Any) -> ComparisonSpec:
    return ComparisonSpec.model_validate({"base": BASE, "vary": {"batch_norm": [True, False]}} | changes)


def names(vary: dict[str, Any]) -> list[str]:
    return [variant.name for variant in variants_of(vary, 100)]


def test_a_grid_is_every_combination_in_the_order_of_its_paths_by_name() -> None:
    one = {"optimizer.learning_rate": [0.1, 1.0], "batch_norm": [True, False]}
    other = dict(reversed(one.items()))

    found = [variant.changes for variant in variants_of(one, 4)]

    assert found == [{"batch_norm": on, "optimizer.learning_rate": rate} for on in (True, False) for rate in (0.1, 1.0)]
    assert names(one) == names(other)
    assert names(one)[0] == "batch_norm=true, learning_rate=0.1"


def test_long_objects_are_named_by_their_kind_or_their_fields_where_these_differ() -> None:
    order = ["shuffled", {"kind": "by_shard", "shards": 20, "and": "so on"}]
    affine = {"affine": {"degrees": 8.0, "translate": 0.05, "scale": 0.05}}
    others = [{"affine": {"degrees": 8.0, "scale": scale}, "flip": True} for scale in (0.25, 0.5)]

    assert names({"training.order": order}) == ["order=shuffled", "order=by_shard"]
    assert names({"training.augmentation": [None, affine]}) == ["augmentation=null", "augmentation=affine"]
    assert names({"training.augmentation": others}) == ["augmentation=#1", "augmentation=#2"]


def test_values_that_are_long_or_written_alike_are_named_by_their_place() -> None:
    assert names({"network.hidden": [[1] * 20, [2]]}) == ["hidden=#1", "hidden=[2]"]
    assert names({"training.precision": ["float32", "bf16"]}) == ["precision=float32", "precision=bf16"]
    assert names({"training.precision": ["1", 1]}) == ["precision=#1", "precision=#2"]
    assert names({"batch_norm.weight_decay": [0.1], "optimizer.weight_decay": [0.2]}) == [
        "batch_norm.weight_decay=0.1, optimizer.weight_decay=0.2"
    ]


def test_variants_by_name_keep_their_order() -> None:
    assert names({"variants": {"z": {}, "a": {"batch_norm": False}}}) == ["z", "a"]


def test_true_in_the_base_gives_way_to_the_fields_of_an_object() -> None:
    body: dict[str, Any] = {"batch_norm": True, "network": {"layers": [{"out": 3}]}}

    put(body, "batch_norm.eps", 0.1, ("vary",))
    put(body, "population.estimator", "pooled", ("vary",))
    put(body, "network.layers.0.out", 5, ("vary",))

    assert body == {
        "batch_norm": {"eps": 0.1},
        "population": {"estimator": "pooled"},
        "network": {"layers": [{"out": 5}]},
    }


@pytest.mark.parametrize("path", ["batch_norm.eps", "network.layers.1.out", "network.layers.x"])
def test_a_path_that_leads_into_nothing_is_refused(path: str) -> None:
    with pytest.raises(SpecInvalid, match=f"/vary/{path}"):
        put({"batch_norm": False, "network": {"layers": [{"out": 3}]}}, path, 1, ("vary",))


def test_seeds_are_counted_from_the_bases_or_listed() -> None:
    assert seeds_of(spec(seeds=3)) == (0, 1, 2)
    assert seeds_of(spec(seeds=2, base=BASE | {"training": {"seed": 7}})) == (7, 8)
    assert seeds_of(spec(seeds=[5, 2])) == (5, 2)


def test_a_member_is_a_job_spec_and_leaves_the_base_as_it_was() -> None:
    comparison = spec(name="c", metadata={"team": "a", "kind": "x"}, base=BASE | {"metadata": {"kind": "y"}})
    variant = Variant("hidden=[8]", {"network.hidden": [8]})

    member = JobSpec.model_validate(member_body(comparison, variant, 5))

    assert (member.name, member.training.seed, member.priority) == ("c-hidden-8-5", 5, -10)
    assert member.publish is None
    assert member.metadata == {"team": "a", "kind": "y"}
    assert comparison.base["network"] == {"family": "mlp", "hidden": [8, 4]}


@pytest.mark.parametrize("text", ["A B=c", "x" * 90, "é", "...", "über=[1, 2]"])
def test_any_text_makes_a_name(text: str) -> None:
    assert NAME.fullmatch(as_name(text))
    assert NAME.fullmatch(as_name(text, end="-17"))


def test_a_name_that_is_cut_keeps_its_seed() -> None:
    assert as_name("x" * 90, end="-17") == "x" * 60 + "-17"


def test_the_default_name_is_that_of_the_base() -> None:
    assert spec().name == "digits-mlp-comparison"
    assert spec(base=BASE | {"name": "first"}).name == "first-comparison"
