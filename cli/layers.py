"""The command on a job's normalization layers."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.output import number, show_json, show_table
from evenkeel import Client, Layer

JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]


def layers(
    job_id: JobId,
    step: Annotated[int | None, typer.Option(min=0, help="As they stood at this step, or before.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how a job's normalization layers stand, at the newest evaluation."""
    with Client() as client:
        reports = client.layers(job_id, step)
    if as_json:
        show_json(reports.raw)
        return
    if not reports.layers:
        print(reports.reason)
        return
    show_table(
        ("layer", "channels", "gamma", "beta", "mean", "variance", "dead", "exploding", "updates"),
        (
            (
                layer.name,
                str(layer.channels),
                _span(layer.gamma),
                _span(layer.beta),
                _span(layer.mean),
                _span(layer.variance),
                str(layer.dead or "-"),
                str(layer.exploding or "-"),
                _updates(layer),
            )
            for layer in reports.layers
        ),
        title=f"step {reports.step:,}, by the {_statistics(reports.layers[0])}; 5th, 50th, 95th percentiles",
    )


def _statistics(layer: Layer) -> str:
    if layer.statistics == "running_average":
        return "running average"
    return f"population statistics ({layer.statistics})"


def _span(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return "-"
    return " … ".join(number(summary.get(name), 3) for name in ("p5", "p50", "p95"))


def _updates(layer: Layer) -> str:
    text = f"{layer.updates:,}"
    if layer.expected_updates not in (None, layer.updates):
        text += f" of {layer.expected_updates:,}"
    return f"{text}, frozen" if layer.frozen else text
