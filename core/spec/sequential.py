"""The family `sequential`: the list of layers as a user writes it.

It is the list of `core.spec.layers` with two freedoms: names may be left out, and a normalization, or
that of an LSTM, may be a mere place for the job's `batch_norm`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from core.spec import layers
from core.spec.base import PositiveInt, Spec
from core.spec.initialization import InitializationSpec
from core.spec.layers import Named
from core.spec.normalization import (
    BatchOptions,
    GroupOptions,
    InstanceOptions,
    LayerOptions,
    LocalResponseOptions,
    WhiteningOptions,
)

MAXIMUM_NESTING = 8
MAXIMUM_LAYERS = 1000
RESERVED = frozenset(("training", "sequence"))
"""What torch, or our network, keeps beside the modules that carry the layers' names."""


class NormalizationPlace(Named):
    """Whatever normalization the job's `batch_norm` says; left out when that is false."""

    layer: Literal["normalization"] = "normalization"


class BatchNormPlace(Named):
    """With `options`: as written, whatever the job's `batch_norm` is. Without: the job's options as far
    as batch norm has them, and left out when the job's `batch_norm` is false. So all kinds below."""

    layer: Literal["batch_norm"] = "batch_norm"
    options: BatchOptions | None = None


class WhiteningPlace(Named):
    layer: Literal["whitening"] = "whitening"
    options: WhiteningOptions | None = None


class LayerNormPlace(Named):
    layer: Literal["layer_norm"] = "layer_norm"
    options: LayerOptions | None = None


class GroupNormPlace(Named):
    layer: Literal["group_norm"] = "group_norm"
    options: GroupOptions | None = None


class InstanceNormPlace(Named):
    layer: Literal["instance_norm"] = "instance_norm"
    options: InstanceOptions | None = None


class LocalResponseNormPlace(Named):
    layer: Literal["local_response_norm"] = "local_response_norm"
    options: LocalResponseOptions | None = None


def _null_for_false(value: Any) -> Any:
    if isinstance(value, str | int | float | list) and not isinstance(value, bool):
        raise ValueError(f"must be true, false, or an object with {', '.join(BatchOptions.model_fields)}")
    return None if value is False else value


def _options_or_the_job(value: Any) -> str:
    return "job" if value is True else "BatchOptions"


class WrittenLSTM(Named):
    __doc__ = layers.LSTM.__doc__

    layer: Literal["lstm"] = "lstm"
    units: PositiveInt
    batch_norm: Annotated[
        Annotated[
            Annotated[BatchOptions, Tag("BatchOptions")] | Annotated[Literal[True], Tag("job")],
            Discriminator(_options_or_the_job),
        ]
        | None,
        BeforeValidator(_null_for_false, json_schema_input_type=BatchOptions | bool | None),
    ] = None
    """True: the job's options, as far as batch norm has them, and none when the job's `batch_norm` is false.
    An object: as written, whatever the job's `batch_norm` is. Null or false: none."""
    outputs: Literal["last", "sequence"] = "last"


class WrittenResidual(Named):
    __doc__ = layers.Residual.__doc__

    layer: Literal["residual"] = "residual"
    body: Annotated[tuple[WrittenLayer, ...], Field(min_length=1, max_length=64)]
    shortcut: Annotated[tuple[WrittenLayer, ...], Field(max_length=64)] = ()


class WrittenParallel(Named):
    __doc__ = layers.Parallel.__doc__

    layer: Literal["parallel"] = "parallel"
    branches: Annotated[
        tuple[Annotated[tuple[WrittenLayer, ...], Field(max_length=64)], ...], Field(min_length=1, max_length=16)
    ]


Place = (
    NormalizationPlace
    | BatchNormPlace
    | WhiteningPlace
    | LayerNormPlace
    | GroupNormPlace
    | InstanceNormPlace
    | LocalResponseNormPlace
)
WrittenLayer = Annotated[
    layers.Linear
    | layers.Conv2d
    | Place
    | layers.Activation
    | layers.Dropout
    | layers.MaxPool2d
    | layers.AveragePool2d
    | layers.GlobalAveragePool2d
    | layers.Flatten
    | layers.ImageRows
    | WrittenLSTM
    | WrittenResidual
    | WrittenParallel,
    Field(discriminator="layer"),
]
WrittenResidual.model_rebuild()
WrittenParallel.model_rebuild()


def named(value: Any) -> Any:
    """The written list with a name for every layer: `<layer kind><n>`, counted depth first, unless it has one."""
    if not isinstance(value, list | tuple):
        return value
    written = list(_written(value, MAXIMUM_NESTING))
    if len(written) > MAXIMUM_LAYERS:
        raise ValueError(f"has {len(written)} layers: at most {MAXIMUM_LAYERS} may be written")
    names = [layer["name"] for layer in written if isinstance(layer.get("name"), str)]
    _refuse_clashes(names)
    return _with_names(value, set(names), {})


def _lists_in(layer: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The lists inside of a residual or parallel layer, by field; branches one by one."""
    for field in ("body", "shortcut"):
        if isinstance(layer.get(field), list | tuple):
            yield field, layer[field]
    branches = layer.get("branches")
    for branch in branches if isinstance(branches, list | tuple) else ():
        if isinstance(branch, list | tuple):
            yield "branches", branch


def _written(value: Any, levels: int) -> Iterator[dict[str, Any]]:
    if levels == 0:
        raise ValueError(f"is nested deeper than {MAXIMUM_NESTING} levels: write blocks one after the other")
    for layer in value:
        if isinstance(layer, dict):
            yield layer
            for _, inside in _lists_in(layer):
                yield from _written(inside, levels - 1)


def _refuse_clashes(names: list[str]) -> None:
    """Names are paths of parameters: none may stand twice, or be the beginning of another's path."""
    taken = set(names)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"has two layers with the name {twice}: give each a name of its own, or none")
    for name in names:
        parts = name.split(".")
        if not RESERVED.isdisjoint(parts):
            raise ValueError(
                f"has a layer {name}, and {' and '.join(sorted(RESERVED))} are words of modules: rename it"
            )
        parent = next((path for n in range(1, len(parts)) if (path := ".".join(parts[:n])) in taken), None)
        if parent is not None:
            raise ValueError(f"has a layer {parent} and one {name} inside of its name: rename one of them")


def _with_names(value: Any, taken: set[str], counts: dict[str, int]) -> list[Any]:
    found: list[Any] = []
    for layer in value:
        if isinstance(layer, dict):
            layer = dict(layer)
            if layer.get("name") is None and isinstance(layer.get("layer"), str):
                layer["name"] = _free_name(layer["layer"], taken, counts)
            for field in ("body", "shortcut"):
                if isinstance(layer.get(field), list | tuple):
                    layer[field] = _with_names(layer[field], taken, counts)
            if isinstance(layer.get("branches"), list | tuple):
                layer["branches"] = [
                    _with_names(branch, taken, counts) if isinstance(branch, list | tuple) else branch
                    for branch in layer["branches"]
                ]
        found.append(layer)
    return found


def _free_name(kind: str, taken: set[str], counts: dict[str, int]) -> str:
    while True:
        counts[kind] = counts.get(kind, 0) + 1
        name = f"{kind}{counts[kind]}"
        if name not in taken and not any(other.startswith(f"{name}.") for other in taken):
            taken.add(name)
            return name


class SequentialSpec(Spec):
    """The layers one after the other, as written here; residual and parallel layers hold lists of their own.

    The last layer gives one value for each class, or one for a regression.
    """

    family: Literal["sequential"] = "sequential"
    layers: Annotated[tuple[WrittenLayer, ...], Field(min_length=1, max_length=256), BeforeValidator(named)]
    """The list. A `name` left out is written out as `<layer kind><n>`."""
    initialization: InitializationSpec = InitializationSpec()
