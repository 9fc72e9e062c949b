"""The part of a job's spec that asks for observation."""

import pytest
from pydantic import ValidationError

from core.spec import JobSpec
from core.spec.observation import ObserveSpec
from core.spec.problems import field_problems

SMALLEST = {"dataset": {"source": "digits"}, "network": {"family": "mlp"}}


def problems_of(observe: object) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(SMALLEST | {"observe": observe})
    return [(problem.pointer, problem.message) for problem in field_problems(caught.value, JobSpec)]


@pytest.mark.parametrize("off", [None, False])
def test_a_spec_that_observes_nothing_does_not_say_so_and_keeps_its_digest(off: object) -> None:
    plain = JobSpec.model_validate(SMALLEST)

    spec = JobSpec.model_validate(SMALLEST | {"observe": off})

    assert "observe" not in spec.model_dump(mode="json")
    assert spec.digest() == plain.digest()
    assert JobSpec.model_validate(spec.model_dump(mode="json")) == plain


@pytest.mark.parametrize("on", [True, {}])
def test_true_stands_for_the_object_with_its_defaults(on: object) -> None:
    spec = JobSpec.model_validate(SMALLEST | {"observe": on})

    assert spec.observe == ObserveSpec()
    assert spec.model_dump(mode="json")["observe"]["percentiles"] == [15.0, 50.0, 85.0]
    assert JobSpec.model_validate_json(spec.model_dump_json()).digest() == spec.digest()


def test_whole_percentiles_may_be_written_as_whole_numbers() -> None:
    assert JobSpec.model_validate(SMALLEST | {"observe": {"percentiles": [0, 50, 99.9]}}).observe.percentiles[2] == 99.9


@pytest.mark.parametrize(
    ("observe", "pointer", "words"),
    [
        ({"percentiles": [50, 101]}, "/observe/percentiles/1", "less than or equal to 100, not 101"),
        ({"percentiles": [50, 50.0]}, "/observe", "two that are recorded as p50: leave one out"),
        ({"percentiles": []}, "/observe/percentiles", "at least 1"),
        ({"rows": 1}, "/observe/rows", "greater than or equal to 2"),
        ({"every": 0}, "/observe/every", "greater than or equal to 1"),
        ({"record": ["drfit"]}, "/observe/record/0", "'drift'"),
        ({"saturation": 0.5}, "/observe/saturation", "less than 0.5"),
        ({"layer": "hidden1"}, "/observe/layer", "did you mean layers?"),
        ("percentiles", "/observe", "true, false, or an object with every"),
    ],
)
def test_a_wrong_value_is_named_with_its_pointer(observe: object, pointer: str, words: str) -> None:
    [(where, message)] = problems_of(observe)

    assert where == pointer
    assert words in message
