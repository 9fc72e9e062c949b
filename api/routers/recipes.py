"""Recipes: list, look at, run."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from api.auth import JobReader, JobWriter
from api.bodies import read_json, validated
from api.documentation import RECIPE_EXAMPLES, json_body
from api.identified import IdempotencyKey, RecipeName
from api.members import answer_of, looked_up, submit_comparison
from api.pagination import Page
from api.query import KNOWN_QUERY
from api.recipes import admit_run, find_recipe, recipes
from api.resources import Held
from api.schemas.comparisons import Comparison
from api.schemas.recipes import Recipe, recipe_of
from core.spec.recipe import RecipeRun

router = APIRouter(prefix="/v1", tags=["recipes"], dependencies=[KNOWN_QUERY])
Body = Annotated[Any, Depends(read_json)]


@router.get("/recipes")
def get_recipes(caller: JobReader) -> Page[Recipe]:
    """The paper's experiments and the questions of its readers, each a comparison in two sizes."""
    data = [recipe_of(recipe) for recipe in recipes().values()]
    return Page[Recipe].of(data, [item.name for item in data])


@router.get("/recipes/{name}")
def get_recipe(caller: JobReader, name: RecipeName) -> Recipe:
    return recipe_of(find_recipe(name))


@router.post("/recipes/{name}/run", status_code=201, openapi_extra=json_body(RecipeRun, RECIPE_EXAMPLES))
def run_recipe(
    caller: JobWriter,
    name: RecipeName,
    body: Body,
    resources: Held,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Comparison:
    """Submits the comparison of a recipe."""
    look_up = partial(looked_up, resources.database, caller.tenant_id, key=idempotency_key)
    found = admit_run(find_recipe(name), validated(RecipeRun, body), resources.settings, look_up)
    row, replayed = submit_comparison(resources.database, caller.tenant_id, found, idempotency_key, resources.settings)
    return answer_of(resources, response, found, row, replayed)
