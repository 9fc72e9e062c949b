"""What a spec would run and cost, as `submit --check` shows it."""

from collections.abc import Iterator, Sequence
from typing import Any

from cli.output import duration, show_table
from evenkeel import Validation


def show_check(checked: Validation) -> None:
    show_table(
        ("layer", "gives", "parameters", "FLOPs a sample"),
        [
            (f"{'  ' * depth}{layer['name']}", _shape(layer["output_shape"]), *_counts(layer))
            for depth, layer in _flat(checked.layers)
        ],
    )
    training = checked.spec["training"]
    seconds = checked.estimated_seconds
    time = "less than a second" if seconds is not None and seconds < 1.0 else duration(seconds)
    show_table(
        ("", ""),
        [
            ("parameters", f"{checked.parameters:,}"),
            ("FLOPs a step", f"{checked.flops_per_step:,}"),
            ("steps", f"{training['steps']:,}, {checked.steps_per_epoch:,} an epoch"),
            ("training takes about", f"{time} ({checked.estimate_basis})" if checked.estimate_basis else time),
            *(("warning", text) for text in checked.warnings),
        ],
    )


def _flat(layers: Sequence[Any], depth: int = 0) -> Iterator[tuple[int, Any]]:
    """(how deep it stands, layer), those inside of another after it."""
    for layer in layers:
        yield depth, layer
        for branch in (layer.get("inside") or {}).values():
            yield from _flat(branch, depth + 1)


def _counts(layer: Any) -> tuple[str, str]:
    return f"{layer['parameters']:,}", f"{layer['flops']:,}"


def _shape(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))
