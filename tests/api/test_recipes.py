"""Recipes over HTTP, and that each of them can be run."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from api.recipes import admit_run, recipes
from core.settings import Settings
from core.spec.recipe import RecipeRun
from tests.api.application import TestClient
from tests.api.bench import Tenant
from tests.api.service import Service

ROOT = Path(__file__).parents[2]
QUICK_STEPS = 200_000
"""Of all members: ten minutes of two cores at the speed of a small network, and far more than any needs."""


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_admitted_in_both_sizes_on_all_its_data(name: str) -> None:
    recipe = recipes()[name]
    for size in ("quick", "full"):
        for source in recipe.data:
            found = admit_run(recipe, RecipeRun(size=size, data=source), Settings(), lambda body: body)
            steps = len(found.seeds) * sum(item.spec.training.steps for item in found.variants)
            assert found.spec.base["dataset"]["source"] == source
            assert size == "full" or steps <= QUICK_STEPS
            assert len(found.variants) > 1


def test_recipes_answer_the_questions_of_the_paper_and_of_its_readers_in_their_order() -> None:
    found = [recipe.question for recipe in recipes().values()]

    assert found[:2] == ["Figure 1", "Table 4"]
    assert found[2:] == sorted(found[2:], key=lambda question: int(question[1:]))
    assert {f"Q{number}" for number in range(1, 18)} == set(found[2:])


def test_files_of_recipes_are_named_after_them_and_installed_with_the_package() -> None:
    files = {file.stem for file in (ROOT / "recipes").glob("*.yaml")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

    assert files == set(recipes())
    assert "recipes" in project["packages"]
    assert project["package-data"]["recipes"] == ["*.yaml"]


def call(client: TestClient, tenant: Tenant, path: str, body: Any = None, key: str | None = None) -> Any:
    headers = tenant.headers | ({"Idempotency-Key": key} if key else {})
    method = "GET" if body is None else "POST"
    return client.request(method, path, headers=headers, json=body)


def test_a_recipe_is_shown_with_the_comparisons_that_it_is(client: TestClient, tenant: Tenant) -> None:
    listed = call(client, tenant, "/v1/recipes").json()
    shown = call(client, tenant, "/v1/recipes/figure-1").json()

    assert (listed["object"], listed["has_more"]) == ("list", False)
    assert listed["data"][0] == shown
    assert shown["sizes"]["full"]["comparison"]["base"]["training"]["steps"] == 50_000
    answer = client.post("/v1/comparisons:validate", headers=tenant.headers, json=shown["sizes"]["quick"]["comparison"])
    assert answer.json()["members"] == 6


def test_a_run_is_a_comparison_that_says_which_recipe_it_is(client: TestClient, tenant: Tenant) -> None:
    body = {"data": "digits", "changes": {"seeds": 1, "base.training.steps": 10}}

    first = call(client, tenant, "/v1/recipes/learning-rate/run", body, key="once")
    again = call(client, tenant, "/v1/recipes/learning-rate/run", body, key="once")

    made = first.json()
    assert (first.status_code, made["object"], made["name"]) == (201, "comparison", "learning-rate")
    assert made["metadata"] == {"recipe": "learning-rate", "size": "quick"}
    assert made["members"]["total"] == 16
    assert again.json()["id"] == made["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    other = call(client, tenant, "/v1/recipes/learning-rate/run", body | {"size": "full"}, key="once")
    assert other.status_code == 422


@pytest.mark.parametrize(
    ("name", "body", "status", "said"),
    [
        ("none", {}, 404, "there are figure-1, inception"),
        ("figure-1", {"size": "huge"}, 422, "/size"),
        ("figure-1", {"data": "cifar"}, 422, "/data"),
        ("figure-1", {"changes": {"base.training.stepps": 3}}, 422, "/comparison/base/training/stepps"),
        ("figure-1", {"changes": {"seeds.x": 3}}, 422, "/changes/seeds.x"),
        ("when-it-fails", {"data": "diabetes"}, 422, "/comparison"),
    ],
)
def test_what_can_not_be_run_is_refused(
    client: TestClient, tenant: Tenant, name: str, body: dict[str, Any], status: int, said: str
) -> None:
    answer = call(client, tenant, f"/v1/recipes/{name}/run", body)

    assert answer.status_code == status
    assert said in answer.text


def test_a_report_shows_other_series_beside_the_metric(service: Service) -> None:
    """Of recipe Q14, whose members train one and the same network: only what they are served by differs."""
    changes = {"seeds": 2, "base.training.steps": 40, "base.training.evaluate_every": 20}
    vary = {"population.estimator": ["pooled", "running_average"]}
    body = {"data": "digits", "changes": changes | {"vary": vary}}
    made = service.post("/v1/recipes/inference-statistics/run", body, 201)
    for _ in range(4):
        service.run()

    report = service.get(f"/v1/comparisons/{made['id']}/report")

    pooled, running = report["figures"]["variants"]
    assert pooled["final"] == running["final"]
    assert pooled["difference"]["final"]["mean"] == 0.0
    jobs = {(job["variant"], job["seed"]): job["job_id"] for job in report["members"]}
    losses = []
    for seed in (0, 1):
        result = service.get(f"/v1/jobs/{jobs[(pooled['name'], seed)]}")["result"]
        losses.append(result["gap"]["population"]["loss"])
    assert pooled["also"]["bn/population_loss"]["last"]["mean"] == pytest.approx(sum(losses) / 2)
    assert pooled["also"]["bn/running_average_loss"] == running["also"]["bn/running_average_loss"] | {
        "difference": pooled["also"]["bn/running_average_loss"]["difference"]
    }
    assert running["also"]["bn/population_loss"]["difference"] is None
    assert report["timing"][0]["steps_per_second"]["n"] == 2
