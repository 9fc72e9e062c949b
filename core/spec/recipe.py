"""Recipes: a comparison with a name, what is claimed of it, and how it is to be read."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from core.errors import FieldProblem, SpecInvalid
from core.spec.base import Name, Spec
from core.spec.data import SOURCES, Source
from core.spec.problems import pointer

Size = Literal["quick", "full"]
Text = Annotated[str, Field(min_length=1, max_length=4000)]


class SizeSpec(Spec):
    """What a size changes."""

    about: Text
    """How long it takes, in words."""
    data: Source | None = None
    """Its default, where that is not the recipe's."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Values by dotted path into the comparison, for instance `base.training.steps`."""


class RecipeSpec(Spec):
    """The content of a file in `recipes/`."""

    name: Name
    question: Annotated[str, Field(pattern=r"^(Figure 1|Table 4|Q[1-9][0-9]?)$")]
    """Of the paper, or of its readers (`docs/questions.md`)."""
    title: Text
    claim: Text
    """What the paper says, or what is commonly held."""
    reading: Text
    """Which figures answer, and what they look like if the claim holds."""
    data: Annotated[tuple[Source, ...], Field(min_length=1)]
    """Sources that it makes sense on; the first by default."""
    comparison: dict[str, Any]
    """A comparison spec, in its full size but for what `sizes` changes."""
    sizes: dict[Size, SizeSpec]

    @model_validator(mode="after")
    def _has_both_sizes(self) -> "RecipeSpec":
        if set(self.sizes) != {"quick", "full"}:
            raise ValueError("sizes must be quick and full")
        return self


class RecipeRun(Spec):
    """How a recipe is run."""

    size: Size = "quick"
    data: Source | dict[str, Any] | None = None
    """A source, or a whole `dataset` of a job; default: the recipe's first."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Values by dotted path into the comparison, over those of the size: for instance `{"seeds": 5}`."""


def comparison_body(recipe: RecipeSpec, run: RecipeRun) -> dict[str, Any]:
    """The body of the comparison that a run of a recipe is. Raises SpecInvalid when a path leads into no object."""
    body: dict[str, Any] = json.loads(json.dumps({"name": recipe.name} | recipe.comparison))
    body["metadata"] = {"recipe": recipe.name, "size": run.size} | body.get("metadata", {})
    for path, value in recipe.sizes[run.size].changes.items():
        _put(body, path, value)
    data = run.data or recipe.sizes[run.size].data or recipe.data[0]
    given = body["base"].get("dataset", {})
    body["base"]["dataset"] = data if isinstance(data, dict) else _moved(given, data)
    for path, value in run.changes.items():
        _put(body, path, value)
    return body


def _moved(dataset: dict[str, Any], source: str) -> dict[str, Any]:
    """The recipe's data set with another source: what only fits the other kind of data is left to its defaults."""
    if source not in SOURCES:
        message = 'is "uploaded": give the whole data set, {"source": "uploaded", "name": "…"}'
        raise SpecInvalid((FieldProblem("/data", "needs_a_name", message),))
    table = SOURCES[source].kind == "table"
    kept = {name: value for name, value in dataset.items() if not (table and name == "scaling" and value == "unit")}
    return kept | {"source": source}


def _put(body: dict[str, Any], path: str, value: Any) -> None:
    here: Any = body
    *steps, last = path.split(".")
    for depth, step in enumerate(steps):
        here = here.setdefault(step, {})
        if not isinstance(here, dict):
            where = ".".join(steps[: depth + 1])
            message = f"{where} of the comparison is {json.dumps(here)[:40]}: change {where} itself"
            raise SpecInvalid((FieldProblem(pointer(("changes", path)), "not_an_object", message),))
    here[last] = value
