"""The recipes that were installed with the service."""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from api.comparisons import Admitted, admit_comparison
from core.errors import FieldProblem, NotFound, SpecInvalid
from core.settings import Settings
from core.spec.recipe import RecipeRun, RecipeSpec, comparison_body

PACKAGE = "recipes"


@cache
def recipes() -> dict[str, RecipeSpec]:
    """By name, in the order of the questions that they answer."""
    found = [
        RecipeSpec.model_validate(yaml.safe_load(file.read_text("utf-8")))
        for file in files(PACKAGE).iterdir()
        if file.name.endswith(".yaml")
    ]
    return {recipe.name: recipe for recipe in sorted(found, key=_place)}


def find_recipe(name: str) -> RecipeSpec:
    found = recipes().get(name)
    if found is None:
        raise NotFound(f"there is no recipe {name}: there are {', '.join(recipes())}")
    return found


def admit_run(recipe: RecipeSpec, run: RecipeRun, settings: Settings, looked_up: Callable[[Any], Any]) -> Admitted:
    """The comparison that a run of the recipe is. Raises SpecInvalid; its problems point into the comparison.

    `looked_up`: adds what is known of an uploaded data set to the comparison that it is given.
    """
    body: Any = comparison_body(recipe, run)
    try:
        return admit_comparison(looked_up(body), settings)
    except SpecInvalid as error:
        told = (FieldProblem(f"/comparison{part.pointer}", part.code, part.message) for part in error.problems)
        raise SpecInvalid(tuple(told)) from None


def _place(recipe: RecipeSpec) -> tuple[bool, int, str]:
    """The paper's own experiments first, then the questions by number."""
    asked = recipe.question.startswith("Q")
    return asked, int(recipe.question[1:]) if asked else 0, recipe.question
