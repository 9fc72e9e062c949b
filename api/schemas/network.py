"""Networks as their lists of layers, and the families that write them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from bn_models.architecture import Placed


class LayerInPlace(BaseModel):
    object: Literal["layer"] = "layer"
    name: str
    layer: dict[str, Any]
    """The layer as a `sequential` spec would write it, every default and override written out."""
    input_shape: list[int]
    """Of one sample: (columns), (channels, height, width), or (steps, features)."""
    output_shape: list[int]
    parameters: int
    """What stands inside is counted too."""
    flops: int
    """Of the forward pass of one sample."""
    inside: dict[str, list[LayerInPlace]] | None = None
    """The lists of a residual layer (`body`, `shortcut`) or of a parallel one (`branches/0`, …)."""


class ExampleNetwork(BaseModel):
    network: dict[str, Any]
    batch_norm: bool = True
    input_shape: list[int]
    outputs: int


class Architecture(BaseModel):
    object: Literal["architecture"] = "architecture"
    family: str
    description: str
    source: str | None
    """The paper that the family is of."""
    inputs: list[str]
    """What data it takes: table, image, sequence."""
    parameters: int
    """Of the example, which is the family with its defaults."""
    flops: int
    """Of the example's forward pass of one sample."""
    example: ExampleNetwork
    json_schema: dict[str, Any]


def in_place(placed: Placed) -> LayerInPlace:
    written = placed.layer.model_dump(mode="json", exclude={"body", "shortcut", "branches"})
    return LayerInPlace(
        name=placed.layer.name,
        layer=written,
        input_shape=list(placed.input_shape),
        output_shape=list(placed.output_shape),
        parameters=placed.parameters,
        flops=placed.flops,
        inside=_inside(placed),
    )


def _inside(placed: Placed) -> dict[str, list[LayerInPlace]] | None:
    if not placed.inside:
        return None
    residual = placed.layer.layer == "residual"
    names = ("body", "shortcut") if residual else tuple(f"branches/{number}" for number in range(len(placed.inside)))
    return {name: [in_place(item) for item in branch] for name, branch in zip(names, placed.inside, strict=True)}
