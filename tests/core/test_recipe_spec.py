"""From a recipe and how it is run to the body of a comparison."""

from typing import Any

import pytest

from core.errors import SpecInvalid
from core.spec.recipe import RecipeRun, RecipeSpec, comparison_body

RECIPE: dict[str, Any] = {
    "name": "rates",
    "question": "Q4",
    "title": "How high?",
    "claim": "Higher.",
    "reading": "Look.",
    "data": ["digits", "wine"],
    "comparison": {
        "base": {"dataset": {"source": "digits", "scaling": "unit"}, "training": {"steps": 500}},
        "vary": {"batch_norm": [True, False]},
    },
    "sizes": {
        "quick": {"about": "soon", "changes": {"base.training.steps": 50, "seeds": 1}},
        "full": {"about": "later"},
    },
}


def body(**run: Any) -> dict[str, Any]:
    return comparison_body(RecipeSpec.model_validate(RECIPE), RecipeRun.model_validate(run))


def test_a_size_changes_what_it_says_and_is_named_in_the_metadata() -> None:
    quick, full = body(), body(size="full")

    assert (quick["base"]["training"]["steps"], quick["seeds"]) == (50, 1)
    assert (full["base"]["training"]["steps"], "seeds" in full) == (500, False)
    assert (quick["name"], quick["metadata"]) == ("rates", {"recipe": "rates", "size": "quick"})
    assert full["metadata"]["size"] == "full"


def test_changes_of_a_run_win_over_those_of_its_size() -> None:
    assert body(changes={"seeds": 9, "base.optimizer.learning_rate": 2.0})["seeds"] == 9
    assert body(changes={"base.optimizer.learning_rate": 2.0})["base"]["optimizer"] == {"learning_rate": 2.0}
    assert RECIPE["comparison"]["base"]["training"]["steps"] == 500


def test_a_source_takes_the_place_of_the_recipe_s_and_a_data_set_all_of_it() -> None:
    assert body()["base"]["dataset"] == {"source": "digits", "scaling": "unit"}
    assert body(data="wine")["base"]["dataset"] == {"source": "wine"}
    whole = {"source": "mnist", "scaling": "standardize"}
    assert body(data=whole)["base"]["dataset"] == whole


def test_a_size_may_have_data_of_its_own() -> None:
    sizes = RECIPE["sizes"] | {"quick": {"about": "soon", "data": "iris"}}
    recipe = RecipeSpec.model_validate(RECIPE | {"sizes": sizes})

    assert comparison_body(recipe, RecipeRun())["base"]["dataset"]["source"] == "iris"
    assert comparison_body(recipe, RecipeRun(size="full"))["base"]["dataset"]["source"] == "digits"
    assert comparison_body(recipe, RecipeRun(data="wine"))["base"]["dataset"]["source"] == "wine"


def test_a_path_that_leads_into_no_object_is_refused_where_it_stands() -> None:
    with pytest.raises(SpecInvalid, match="change seeds itself"):
        body(changes={"seeds.first": 1})


@pytest.mark.parametrize("sizes", [{}, {"quick": {"about": "a"}}, {"quick": {"about": "a"}, "long": {"about": "b"}}])
def test_a_recipe_has_both_sizes(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="sizes"):
        RecipeSpec.model_validate(RECIPE | {"sizes": sizes})
