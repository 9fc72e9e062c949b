"""Normalization and activation: the one helper that every family builds its blocks with."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pydantic import ValidationError

from core.errors import FieldProblem, SpecInvalid
from core.spec import layers, normalization
from core.spec.layers import Activation, ActivationKind, Layer, Normalization
from core.spec.normalization import LayerNormalization, NormalizationSpec, Override
from core.spec.problems import field_problems, pointer

OPTIONS: dict[str, type[LayerNormalization]] = {
    "batch": normalization.BatchOptions,
    "whitening": normalization.WhiteningOptions,
    "layer": normalization.LayerOptions,
    "group": normalization.GroupOptions,
    "instance": normalization.InstanceOptions,
    "local_response": normalization.LocalResponseOptions,
}
LAYERS: dict[str, type[Normalization]] = {
    "batch": layers.BatchNorm,
    "whitening": layers.Whitening,
    "layer": layers.LayerNorm,
    "group": layers.GroupNorm,
    "instance": layers.InstanceNorm,
    "local_response": layers.LocalResponseNorm,
}


def tag(kind: str) -> str:
    """What the list of layers calls a normalization of this kind, for instance `batch_norm`."""
    return str(LAYERS[kind].model_fields["layer"].default)


@dataclass
class Blocks:
    """The job's `batch_norm` at every place where a family may normalize; its overrides are applied here.

    `problems` collects what is wrong with the overrides; `finish` adds the patterns that fitted no place.
    """

    batch_norm: NormalizationSpec | None
    names: list[str] = field(default_factory=list)
    problems: list[FieldProblem] = field(default_factory=list)
    _fitted: set[str] = field(default_factory=set)

    def activated(self, block: str, activation: ActivationKind) -> tuple[Layer, ...]:
        """The activation of a block, with its normalization before it, after it, or none."""
        before, after = self.around(block)
        return (*before, Activation(name=f"{block}.activation", kind=activation), *after)

    def around(self, block: str) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
        """What stands (before, after) the activation of a block: one normalization in all, or none."""
        options = self.options(f"{block}.{tag(self.batch_norm.kind)}" if self.batch_norm else block)
        if options is None:
            return (), ()
        found = (normalized(f"{block}.{tag(options.kind)}", options),)
        return (found, ()) if options.placement == "before_activation" else ((), found)

    def options(self, name: str, kind: str | None = None) -> LayerNormalization | None:
        """The options of the normalization `name`, overrides applied; None: there is none.

        `kind`: what it is unless an override says otherwise; default: as the network has it.
        """
        if self.batch_norm is None:
            return None
        self.names.append(name)
        base = _of_kind(self.batch_norm, kind or self.batch_norm.kind)
        self._fitted.update(_fitting(self.batch_norm, name))
        chosen = _chosen(self.batch_norm, name)
        if chosen is None:
            return base
        override = self.batch_norm.layers[chosen]
        return self._overridden(base, override, chosen) if override.on else None

    def finish(self) -> None:
        """Raises SpecInvalid with every problem of the overrides: none may be silently without effect."""
        for pattern in self.batch_norm.layers if self.batch_norm else ():
            if pattern not in self._fitted:
                self._refuse((pattern,), "fits_no_layer", f"fits no normalization: {self._nearest(pattern)}")
        if self.problems:
            raise SpecInvalid(tuple(dict.fromkeys(self.problems)))

    def _overridden(self, base: LayerNormalization, override: Override, pattern: str) -> LayerNormalization:
        target = OPTIONS[override.kind or base.kind]
        given = override.fields()
        for name in given.keys() - target.model_fields.keys():
            having = ", ".join(kind for kind, options in OPTIONS.items() if name in options.model_fields)
            kind = target.model_fields["kind"].default
            message = f"is no option of the kind {kind}: leave it out, or set kind to one that has it ({having})"
            self._refuse((pattern, name), "unknown_option", message)
        kept = _shared(base, target)
        if given.get("affine") in (False, "beta"):
            kept.pop("initial_gamma", None)  # of a gamma that this layer has no more
        if given.get("affine") in (False, "gamma"):
            kept.pop("initial_beta", None)
        try:
            return target.model_validate(kept | {name: given[name] for name in given if name in target.model_fields})
        except ValidationError as error:
            for problem in field_problems(error, target):
                self._refuse((pattern, *problem.pointer.split("/")[1:]), problem.code, problem.message)
            return base

    def _refuse(self, place: tuple[str, ...], code: str, message: str) -> None:
        self.problems.append(FieldProblem(pointer(("batch_norm", "layers", *place)), code, message))

    def _nearest(self, pattern: str) -> str:
        if not self.names:
            return "this network has none"
        close = get_close_matches(pattern, self.names, n=3, cutoff=0.0)
        return f"use a name, the beginning of one, or a pattern with *, nearest are {', '.join(close)}"


def normalized(name: str, options: LayerNormalization) -> Normalization:
    """The layer of a kind of normalization."""
    return LAYERS[options.kind].model_validate({"name": name, "options": options})


def source(batch_norm: NormalizationSpec | None, name: str, field: str) -> str:
    """The pointer of what decides an option of the normalization `name`: an override, or the network's options."""
    if batch_norm is None:
        return "/batch_norm"
    # An override may have changed the kind of a layer, and with it the name that the pattern fitted.
    first = f"{name.rpartition('.')[0]}.{tag(batch_norm.kind)}"
    chosen = _chosen(batch_norm, name) or _chosen(batch_norm, first)
    if chosen is not None and field in batch_norm.layers[chosen].model_fields_set:
        return pointer(("batch_norm", "layers", chosen, field))
    return f"/batch_norm/{field}"


def _chosen(batch_norm: NormalizationSpec, name: str) -> str | None:
    """Of the patterns that fit the most specific, so that their order, which JSON does not keep, has no say."""
    return max(_fitting(batch_norm, name), key=lambda pattern: (len(pattern.replace("*", "")), pattern), default=None)


def _fitting(batch_norm: NormalizationSpec, name: str) -> list[str]:
    return [pattern for pattern in batch_norm.layers if _fits(pattern, name)]


def _of_kind(options: LayerNormalization, kind: str) -> LayerNormalization:
    """`options` without what only a whole network has; of another kind, as far as that has them."""
    return OPTIONS[kind].model_validate(_shared(options, OPTIONS[kind]))


def _shared(options: LayerNormalization, target: type[LayerNormalization]) -> dict[str, object]:
    fields = type(options).model_fields.keys() & target.model_fields.keys() - {"kind"}
    return {name: getattr(options, name) for name in fields}


def _fits(pattern: str, name: str) -> bool:
    """Whether the pattern fits the name, or the beginning of it up to a dot."""
    return any(fnmatchcase(part, pattern) for part in _beginnings(name))


def _beginnings(name: str) -> Iterator[str]:
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])
