"""Specs of networks and normalization: presets written out, lists written by hand, and what is refused in them."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from core.spec import FAMILIES, InceptionSpec, JobSpec, ResNetSpec, SequentialSpec
from core.spec.normalization import BatchNormSpec, GroupNormSpec, NormalizationSpec, WhiteningSpec
from core.spec.problems import field_problems
from core.spec.sequential import MAXIMUM_LAYERS

SMALLEST = {"dataset": {"source": "digits"}, "network": {"family": "mlp"}}
LINEAR = {"layer": "linear", "features": 3}


def problems_of(part: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(SMALLEST | part)
    return [(problem.pointer, problem.message) for problem in field_problems(caught.value, JobSpec)]


def network(family: str, **fields: Any) -> dict[str, Any]:
    return {"network": {"family": family, **fields}}


def written(*layers: Any) -> dict[str, Any]:
    return network("sequential", layers=list(layers))


def batch_norm(**fields: Any) -> NormalizationSpec | None:
    return JobSpec.model_validate(SMALLEST | {"batch_norm": fields}).batch_norm


@pytest.mark.parametrize(
    ("given", "block", "blocks", "width", "stem"),
    [
        ({}, "basic", (3, 3, 3), 16, "small"),
        ({"depth": 56}, "basic", (9, 9, 9), 16, "small"),
        ({"depth": 34}, "basic", (3, 4, 6, 3), 64, "imagenet"),
        ({"depth": 50}, "bottleneck", (3, 4, 6, 3), 64, "imagenet"),
        ({"depth": 50, "width": 8, "stem": "small"}, "bottleneck", (3, 4, 6, 3), 8, "small"),
        ({"blocks": [1, 2]}, "basic", (1, 2), 16, "small"),
    ],
)
def test_a_depth_writes_out_the_rest_of_a_resnet(
    given: dict[str, Any], block: str, blocks: tuple[int, ...], width: int, stem: str
) -> None:
    spec = ResNetSpec.model_validate(given)

    assert (spec.block, spec.blocks, spec.width, spec.stem) == (block, blocks, width, stem)


def test_blocks_write_out_the_depth() -> None:
    assert ResNetSpec.model_validate({"blocks": [1, 2]}).depth == 8
    assert ResNetSpec.model_validate({"block": "bottleneck", "blocks": [1, 2]}).depth == 11


@pytest.mark.parametrize("fields", [{"depth": 21}, {"depth": 50, "block": "basic"}, {"depth": 20, "blocks": [1]}])
def test_a_depth_that_contradicts_the_blocks_is_refused_with_the_depths_there_are(fields: dict[str, Any]) -> None:
    [(pointer, message)] = problems_of(network("resnet", **fields))

    assert pointer == "/network"
    assert "a depth of 18, 20, 32" in message


@pytest.mark.parametrize("block", [["basic"], {}, "wide"])
def test_a_block_that_is_none_is_refused_where_it_stands(block: Any) -> None:
    [(pointer, message)] = problems_of(network("resnet", blocks=[1], block=block))

    assert pointer == "/network/block"
    assert "must be 'basic' or 'bottleneck'" in message


def test_the_width_of_an_inception_follows_its_variant() -> None:
    assert InceptionSpec().width == 0.25
    assert InceptionSpec.model_validate({"variant": "full"}).width == 1.0
    assert InceptionSpec.model_validate({"variant": "full", "width": 0.5}).width == 0.5


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "sequential"])
def test_a_network_with_its_defaults_written_out_is_the_same_network(family: str) -> None:
    spec = JobSpec.model_validate(SMALLEST | network(family))

    again = JobSpec.model_validate_json(spec.model_dump_json())

    assert again == spec
    assert again.digest() == spec.digest()


def test_a_written_list_with_its_names_written_out_is_the_same_list() -> None:
    layers = [LINEAR, {"layer": "residual", "body": [{"layer": "normalization"}, LINEAR], "shortcut": []}]
    spec = JobSpec.model_validate(SMALLEST | written(*layers))

    again = JobSpec.model_validate_json(spec.model_dump_json())

    assert again == spec
    assert isinstance(spec.network, SequentialSpec)
    assert [layer.name for layer in spec.network.layers] == ["linear1", "residual1"]


@pytest.mark.parametrize(
    ("layers", "pointer", "words"),
    [
        ([], "/network/layers", "at least 1 items"),
        (["linear"], "/network/layers/0", "must be an object with layer (one of linear, conv2d, normalization"),
        ([{"features": 3}], "/network/layers/0/layer", "is missing: give one of linear"),
        ([{"layer": "linear"}], "/network/layers/0/features", "is missing: give a value"),
        ([{**LINEAR, "name": "a b"}], "/network/layers/0/name", "letters, digits and '_'"),
        ([{**LINEAR, "bias": "true"}], "/network/layers/0/bias", "must be true or false"),
        ([{**LINEAR, "name": "a"}] * 2, "/network/layers", "two layers with the name a"),
        ([{**LINEAR, "name": "a"}, {**LINEAR, "name": "a.b"}], "/network/layers", "rename one of them"),
        (
            [{"layer": "residual", "body": [{"layer": "batch_norm", "options": {"mometum": 1}}]}],
            "/network/layers/0/body/0/options/mometum",
            "did you mean momentum?",
        ),
        (
            [{"layer": "parallel", "branches": [[], [{"layer": "dropout", "probability": 1.0}]]}],
            "/network/layers/0/branches/1/0/probability",
            "less than 1",
        ),
        (
            [{"layer": "lstm", "units": 3, "batch_norm": "yes"}],
            "/network/layers/0/batch_norm",
            "must be true, false, or an object with placement",
        ),
        (
            [{"layer": "lstm", "units": 3, "batch_norm": {"mometum": 1}}],
            "/network/layers/0/batch_norm/mometum",
            "did you mean momentum?",
        ),
        ([LINEAR] * 300, "/network/layers", "at most 256"),
        (
            [{"layer": "max_pool2d", "kernel_size": 10**9, "padding": 5 * 10**8, "stride": 1}],
            "/network/layers/0/kernel_size",
            "less than or equal to 1024",
        ),
        (
            [{"layer": "parallel", "branches": [[LINEAR] * 64] * 16}] * 2,
            "/network/layers",
            f"at most {MAXIMUM_LAYERS}",
        ),
    ],
)
def test_what_is_wrong_in_a_written_list_is_said_where_it_stands(layers: list[Any], pointer: str, words: str) -> None:
    [(at, message)] = problems_of(written(*layers))

    assert at == pointer
    assert words in message


def test_a_list_that_is_nested_without_end_is_refused() -> None:
    layer: dict[str, Any] = LINEAR
    for _ in range(50):
        layer = {"layer": "residual", "body": [layer]}

    [(pointer, message)] = problems_of(written(layer))

    assert (pointer, "deeper than 8" in message) == ("/network/layers", True)


@pytest.mark.parametrize(
    ("fields", "pointer", "message"),
    [
        (
            {"kind": "bach"},
            "/batch_norm/kind",
            'is "bach": give one of batch, whitening, layer, group, instance, local_response',
        ),
        ({"affine": "true"}, "/batch_norm/affine", 'must be true, false, "gamma" or "beta", not \'true\''),
        ({"affine": 1}, "/batch_norm/affine", 'must be true, false, "gamma" or "beta", not 1'),
        ({"zero_last_gamma": "true"}, "/batch_norm/zero_last_gamma", 'must be true or false, not "true"'),
        ({"eps": 1e-40}, "/batch_norm/eps", "must be greater than or equal to 0.000000000001, not 1e-40"),
        (
            {"kind": "local_response", "size": 10**9},
            "/batch_norm/size",
            "must be less than or equal to 1024, not 1000000000",
        ),
        ({"virtual_batch_size": 1}, "/batch_norm/virtual_batch_size", "must be greater than or equal to 2, not 1"),
        ({"layers": {"a": {"momentum": 7}}}, "/batch_norm/layers/a/momentum", "must be less than or equal to 1, not 7"),
        (
            {"layers": {"a": {"on": False, "momentum": 0.5, "eps": 0.1}}},
            "/batch_norm/layers/a",
            "has on false and eps, momentum: leave these out, or on",
        ),
        (
            {"layers": {"aSpec": {"momentun": 1}}},
            "/batch_norm/layers/aSpec/momentun",
            "unknown field: did you mean momentum?",
        ),
        (
            {"layers": {"a": {"affine": 2}}},
            "/batch_norm/layers/a/affine",
            'must be true, false, "gamma" or "beta", not 2',
        ),
    ],
)
def test_options_of_a_normalization_are_refused_where_they_stand(
    fields: dict[str, Any], pointer: str, message: str
) -> None:
    assert problems_of({"batch_norm": fields}) == [(pointer, message)]


def test_an_option_of_another_kind_is_refused_with_those_of_this_one() -> None:
    [(pointer, message)] = problems_of({"batch_norm": {"kind": "layer", "momentum": 0.1}})

    assert pointer == "/batch_norm/momentum"
    assert "known here are" in message


def test_the_kind_of_a_normalization_chooses_its_options() -> None:
    assert isinstance(batch_norm(), BatchNormSpec)
    assert isinstance(batch_norm(kind="whitening", group_size=4), WhiteningSpec)
    assert isinstance(batch_norm(kind="group", groups=4), GroupNormSpec)


def test_null_in_an_override_is_a_value_and_not_an_absence() -> None:
    given = batch_norm(layers={"a": {"momentum": None}, "b": {}, "c": False, "d": True})

    assert given is not None
    assert given.model_dump(mode="json")["layers"] == {"a": {"momentum": None}, "b": {}, "c": False, "d": {}}
    assert {name: override.fields() for name, override in given.layers.items()} == {
        "a": {"momentum": None},
        "b": {},
        "c": {},
        "d": {},
    }
    assert TypeAdapter[NormalizationSpec](NormalizationSpec).validate_json(given.model_dump_json()).digest() == (
        given.digest()
    )


def test_overrides_in_another_order_are_the_same_spec() -> None:
    one, other = batch_norm(layers={"a": False, "b": {}}), batch_norm(layers={"b": {}, "a": False})

    assert one is not None and other is not None
    assert one.digest() == other.digest()
