"""Data sets in a job spec: what a user writes of one that was uploaded, and what the service adds."""

from typing import Any

import pytest
from pydantic import ValidationError

from core.spec import DatasetSpec, JobSpec, SourceFacts

UPLOADED: dict[str, Any] = {"source": "uploaded", "name": "waves"}
STORED: dict[str, Any] = {
    "sha256": "a" * 64,
    "file": {"name": "datasets/aa/a.safetensors", "sha256": "b" * 64, "bytes": 100},
    "task": "classification",
    "kind": "sequence",
    "input_shape": [12, 4],
    "outputs": 3,
    "rows": 600,
    "test_rows": None,
    "pixel_maximum": None,
}


def known(**facts: Any) -> dict[str, Any]:
    return UPLOADED | {"version": 2, "stored": STORED | facts}


def refused(body: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        DatasetSpec.model_validate(body)
    return str(caught.value)


def test_a_source_of_ours_is_written_as_before_there_were_uploads() -> None:
    assert DatasetSpec.model_validate({"source": "iris"}).model_dump(mode="json") == {
        "source": "iris",
        "scaling": "standardize",
        "validation_fraction": 0.1,
        "test_fraction": 0.2,
        "split_seed": 0,
    }


def test_an_upload_that_was_not_looked_up_says_no_more_than_its_user() -> None:
    body = {"dataset": UPLOADED | {"test_fraction": 0.3}, "network": {"family": "recurrent"}}

    spec = JobSpec.model_validate(body)

    assert spec.name == "waves-recurrent"
    assert spec.model_dump(mode="json")["dataset"] == body["dataset"]
    assert JobSpec.model_validate(spec.model_dump(mode="json")) == spec
    with pytest.raises(LookupError, match="waves"):
        _ = spec.dataset.facts


def test_what_the_service_knows_decides_facts_defaults_and_splits() -> None:
    spec = DatasetSpec.model_validate(known())

    assert spec.facts == SourceFacts("classification", "sequence", (12, 4), 3, 600, None, None)
    assert (spec.scaling, spec.validation_fraction, spec.test_fraction) == ("standardize", 0.1, 0.2)
    assert spec.split_sizes() == (432, 48, 120)
    assert DatasetSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_a_test_set_that_was_uploaded_is_not_split_again() -> None:
    official = DatasetSpec.model_validate(known(test_rows=100))

    assert official.split_sizes() == (500, 0, 100)
    assert official.test_fraction is None
    assert "waves has an official test set" in refused(known(test_rows=100) | {"test_fraction": 0.2})


@pytest.mark.parametrize(("maximum", "scaling"), [(16, "unit"), (0.5, "unit"), (None, "standardize")])
def test_images_are_divided_by_their_largest_pixel_unless_one_is_negative(maximum: Any, scaling: str) -> None:
    image = known(kind="image", input_shape=[1, 8, 8], pixel_maximum=maximum)

    assert DatasetSpec.model_validate(image).scaling == scaling


def test_images_with_negative_pixels_are_not_divided() -> None:
    body = known(kind="image", input_shape=[1, 8, 8]) | {"scaling": "unit"}

    assert "use 'standardize' or 'none'" in refused(body)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"source": "uploaded"}, "needs the name of a data set"),
        ({"source": "digits", "name": "waves"}, "name is of data sets that were uploaded"),
        ({"source": "digits", "version": 1}, "version is of data sets that were uploaded"),
        (UPLOADED | {"version": 0}, "greater than or equal to 1"),
        (UPLOADED | {"name": "Waves!"}, "pattern"),
        (known(rows=0), "rows"),
        (known(input_shape=[]), "input_shape"),
    ],
)
def test_what_can_not_be_is_refused(body: dict[str, Any], told: str) -> None:
    assert told in refused(body)


def test_columns_of_a_table_may_be_divided_by_their_largest_value() -> None:
    assert DatasetSpec.model_validate({"source": "iris", "scaling": "unit"}).scaling == "unit"
