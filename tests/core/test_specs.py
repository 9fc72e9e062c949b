"""Specs: shorthand, defaults, digests, and what they refuse."""

import pytest
from pydantic import ValidationError

from core.spec import FAMILIES, BatchNormSpec, JobSpec
from core.spec.problems import field_problems

SMALLEST = {"dataset": {"source": "digits"}, "network": {"family": "mlp"}}


def problems_of(body: dict) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(body)
    return [(problem.pointer, problem.message) for problem in field_problems(caught.value, JobSpec)]


def test_true_stands_for_batch_norm_with_its_defaults() -> None:
    assert JobSpec.model_validate(SMALLEST | {"batch_norm": True}).batch_norm == BatchNormSpec()


def test_false_stands_for_no_batch_norm() -> None:
    assert JobSpec.model_validate(SMALLEST | {"batch_norm": False}).batch_norm is None


def test_batch_norm_is_on_unless_it_is_switched_off() -> None:
    assert JobSpec.model_validate(SMALLEST).batch_norm == BatchNormSpec()


def test_a_spec_with_its_defaults_written_out_is_the_same_spec() -> None:
    spec = JobSpec.model_validate(SMALLEST)

    again = JobSpec.model_validate_json(spec.model_dump_json())

    assert again == spec
    assert again.digest() == spec.digest()


def test_another_value_gives_another_digest() -> None:
    one = JobSpec.model_validate(SMALLEST | {"training": {"seed": 1}})
    other = JobSpec.model_validate(SMALLEST | {"training": {"seed": 2}})

    assert one.digest() != other.digest()


def test_a_spec_can_not_be_changed() -> None:
    spec = JobSpec.model_validate(SMALLEST)

    with pytest.raises(ValidationError):
        spec.name = "other"  # type: ignore[misc]


def test_publish_absent_means_a_version_under_the_name_of_the_job() -> None:
    spec = JobSpec.model_validate(SMALLEST | {"name": "first"})

    assert spec.publish is not None
    assert (spec.publish.model, spec.publish.alias) == ("first", "latest")


def test_publish_null_means_no_export() -> None:
    assert JobSpec.model_validate(SMALLEST | {"publish": None}).publish is None


def test_the_name_defaults_to_source_and_family() -> None:
    body = {"dataset": {"source": "breast_cancer"}, "network": {"family": "mlp"}}

    assert JobSpec.model_validate(body).name == "breast-cancer-mlp"


def test_a_typo_in_a_hyperparameter_is_refused_where_it_stands() -> None:
    assert problems_of(SMALLEST | {"optimizer": {"kind": "sgd", "learning_rte": 1}}) == [
        ("/optimizer/learning_rte", "unknown field: did you mean learning_rate?")
    ]


def test_a_wrong_value_is_named_with_its_pointer() -> None:
    [(pointer, message)] = problems_of(SMALLEST | {"batch_norm": {"momentum": 0}})

    assert pointer == "/batch_norm/momentum"
    assert message == "must be greater than 0, not 0"


def test_an_unknown_family_is_named_with_those_that_exist() -> None:
    [(pointer, message)] = problems_of(SMALLEST | {"network": {"family": "alexnet"}})

    assert pointer == "/network/family"
    assert message == f'is "alexnet": give one of {", ".join(FAMILIES)}'


def test_an_optimizer_without_a_kind_is_sgd_and_a_schedule_without_one_is_constant() -> None:
    spec = JobSpec.model_validate(SMALLEST | {"optimizer": {"learning_rate": 0.3}, "schedule": {"warmup_steps": 5}})

    assert (spec.optimizer.kind, spec.optimizer.learning_rate) == ("sgd", 0.3)
    assert (spec.schedule.kind, spec.schedule.warmup_steps) == ("constant", 5)


def test_an_alias_alone_moves_to_a_version_under_the_name_of_the_job() -> None:
    spec = JobSpec.model_validate(SMALLEST | {"name": "first", "publish": {"alias": "nightly"}})

    assert spec.publish is not None
    assert (spec.publish.model, spec.publish.alias) == ("first", "nightly")


@pytest.mark.parametrize(
    ("part", "problems"),
    [
        ({"network": {"hidden": [3]}}, [("/network/family", f"is missing: give one of {', '.join(FAMILIES)}")]),
        (
            {"network": "mlp"},
            [("/network", f'must be an object with family (one of {", ".join(FAMILIES)}), not "mlp"')],
        ),
        (
            {"optimizer": {"learning_rat": 1}},
            [("/optimizer/learning_rat", "unknown field: did you mean learning_rate?")],
        ),
        ({"optimizer": {"kind": None}}, [("/optimizer/kind", "is null: give one of sgd, adam, adamw")]),
        (
            {"schedule": {"kind": "step", "every": 0}},
            [("/schedule/every", "must be greater than or equal to 1, not 0")],
        ),
        ({"network": {"family": "mlp", "hidden": "3"}}, [("/network/hidden", 'must be a list, not "3"')]),
        ({"training": {"steps": True}}, [("/training/steps", "must be a whole number, not true")]),
        ({"training": {"steps": "9"}}, [("/training/steps", 'must be a whole number, not "9"')]),
        (
            {"resources": {"device": "gpu"}},
            [("/resources/device", 'must be auto, cpu, cuda, or cuda: and a number, not "gpu"')],
        ),
        (
            {"batch_norm": "yes"},
            [
                (
                    "/batch_norm",
                    "must be true, false, or an object with placement, eps, affine, initial_gamma, initial_beta, "
                    "zero_last_gamma, learning_rate_multiplier, weight_decay, kind, momentum, virtual_batch_size, "
                    "freeze_last_steps, layers, not 'yes'",
                )
            ],
        ),
        ({"metadata": {"MySpec": 1}}, [("/metadata/MySpec", "must be a text, not 1")]),
    ],
)
def test_what_is_wrong_is_said_in_words_that_name_the_remedy(part: dict, problems: list[tuple[str, str]]) -> None:
    assert problems_of(SMALLEST | part) == problems


def test_a_name_that_is_refused_is_refused_once() -> None:
    assert [pointer for pointer, _ in problems_of(SMALLEST | {"name": "First"})] == ["/name"]


def test_a_missing_section_is_named() -> None:
    assert [pointer for pointer, _ in problems_of({"network": {"family": "mlp"}})] == ["/dataset"]


@pytest.mark.parametrize("momentum", [0.0, -0.1, 1.5])
def test_a_momentum_outside_of_zero_to_one_is_refused(momentum: float) -> None:
    assert problems_of(SMALLEST | {"batch_norm": {"momentum": momentum}})


def test_a_source_with_an_official_test_set_is_not_split_again() -> None:
    [(_, message)] = problems_of(SMALLEST | {"dataset": {"source": "mnist", "test_fraction": 0.1}})

    assert "leave test_fraction out" in message


def test_mnist_trains_on_all_of_its_training_images() -> None:
    spec = JobSpec.model_validate({"dataset": {"source": "mnist"}, "network": {"family": "mlp"}})

    assert spec.dataset.split_sizes() == (60_000, 0, 10_000)


def test_splits_of_digits_cover_every_row_once() -> None:
    assert sum(JobSpec.model_validate(SMALLEST).dataset.split_sizes()) == 1797


def test_metadata_holds_sixteen_pairs_and_no_more() -> None:
    sixteen = {f"k{i}": "v" for i in range(16)}

    assert JobSpec.model_validate(SMALLEST | {"metadata": sixteen}).metadata == sixteen
    assert problems_of(SMALLEST | {"metadata": sixteen | {"k16": "v"}})


def test_a_nul_character_is_refused() -> None:
    assert problems_of(SMALLEST | {"metadata": {"team": "a\x00b"}})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    assert problems_of(SMALLEST | {"optimizer": {"kind": "sgd", "learning_rate": value}})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_json_schema(family: str) -> None:
    schema = FAMILIES[family].model_json_schema()

    assert schema["additionalProperties"] is False
    assert schema["properties"]["family"]["const"] == family
