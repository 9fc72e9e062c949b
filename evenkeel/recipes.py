"""Recipes in the client: list, look at, run."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import quote

from evenkeel.comparisons import Comparison, Comparisons
from evenkeel.results import Raw
from evenkeel.transport import Transport


@dataclass(frozen=True)
class Recipe:
    """A comparison with a name, what is claimed of it, and how it is to be read."""

    name: str
    question: str
    title: str
    claim: str
    reading: str
    data: tuple[str, ...]
    sizes: Mapping[str, Raw]
    """By name (`quick`, `full`): `about`, and the `comparison` that it is."""
    raw: Raw = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: Raw) -> Self:
        texts = {name: raw[name] for name in ("name", "question", "title", "claim", "reading", "sizes")}
        return cls(data=tuple(raw["data"]), raw=raw, **texts)


class Recipes:
    """`client.recipes`."""

    def __init__(self, transport: Transport, comparisons: Comparisons) -> None:
        self._transport = transport
        self._comparisons = comparisons

    def list(self) -> Sequence[Recipe]:
        return [Recipe.read(raw) for raw in self._transport.json("GET", "/v1/recipes")["data"]]

    def get(self, name: str) -> Recipe:
        return Recipe.read(self._transport.json("GET", _at(name)))

    def run(
        self,
        name: str,
        size: Literal["quick", "full"] = "quick",
        data: str | Mapping[str, Any] | None = None,
        changes: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Comparison:
        """Submits the comparison of a recipe. `data`: a source or a data set; `changes`: values by path into it."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        body = {"size": size, "data": data, "changes": dict(changes or {})}
        raw = self._transport.json("POST", f"{_at(name)}/run", body=body, headers=headers)
        return Comparison.read(raw, self._comparisons)


def _at(name: str) -> str:
    return f"/v1/recipes/{quote(name, safe='')}"
