"""Recipes as clients see them."""

from typing import Any, Literal

from pydantic import BaseModel

from core.spec.recipe import RecipeRun, RecipeSpec, comparison_body


class RecipeSize(BaseModel):
    about: str
    comparison: dict[str, Any]
    """The body of the comparison that it is."""


class Recipe(BaseModel):
    object: Literal["recipe"] = "recipe"
    name: str
    question: str
    title: str
    claim: str
    reading: str
    data: list[str]
    sizes: dict[str, RecipeSize]


def recipe_of(recipe: RecipeSpec) -> Recipe:
    return Recipe(
        **recipe.model_dump(mode="json", include={"name", "question", "title", "claim", "reading", "data"}),
        sizes={
            name: RecipeSize(about=size.about, comparison=comparison_body(recipe, RecipeRun(size=name)))
            for name, size in recipe.sizes.items()
        },
    )
