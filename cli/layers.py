"""Commands on normalization layers: of a job as it trains, and of a model as it answers."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from cli.output import console, number, show_json, show_table
from evenkeel import Client, Layer

WIDE = 150
"""Columns of a terminal on which three percentiles of everything fit."""
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
    show, figures = _shown()
    show_table(
        ("layer", "channels", "gamma", "beta", "mean", "variance", "dead", "exploding", "updates"),
        (
            (
                layer.name,
                str(layer.channels),
                *(show(summary) for summary in (layer.gamma, layer.beta, layer.mean, layer.variance)),
                str(layer.dead or "-"),
                str(layer.exploding or "-"),
                _updates(layer),
            )
            for layer in reports.layers
        ),
        title=f"step {reports.step:,}, by the {_statistics(reports.layers[0])}; {figures}",
    )


def population(
    model: Annotated[str, typer.Argument(help="The model's name.", metavar="MODEL")],
    version: Annotated[int | None, typer.Option(help="This version.")] = None,
    alias: Annotated[str | None, typer.Option(help="The version of this alias; `latest` unless given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the population statistics that a model answers by."""
    with Client() as client:
        answer = client.population(model, version, alias=alias)
    measured = answer["population"]
    if as_json:
        show_json(answer)
    elif measured is None:
        print(f"{model} version {answer['version']} has no layer with statistics: it is not batch-normalized")
    else:
        show, figures = _shown()
        layers = sorted(measured["layers"].items(), key=lambda named: int(named[1].get("position", 0)))
        show_table(
            ("layer", "channels", "values a channel", "mean", "variance"),
            (
                (name, str(part["channels"]), f"{part['n']:,}", show(part["mean"]), show(part["variance"]))
                for name, part in layers
            ),
            title=f"{model} version {answer['version']}: {measured['estimator']}, {measured['samples']:,} samples "
            f"in batches of {measured['batch_size']:,}; {figures}",
        )


def _statistics(layer: Layer) -> str:
    if layer.statistics == "running_average":
        return "running average"
    return f"population statistics ({layer.statistics})"


def _shown() -> tuple[Callable[[Mapping[str, Any] | None], str], str]:
    """How a summary is shown on standard output as it is now, and what that is called."""
    if console().width >= WIDE:
        return _span, "5th, 50th, 95th percentiles"
    return _median, "medians (--json: percentiles)"


def _median(summary: Mapping[str, Any] | None) -> str:
    return "-" if summary is None else number(summary.get("p50"), 3)


def _span(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return "-"
    return " … ".join(number(summary.get(name), 3) for name in ("p5", "p50", "p95"))


def _updates(layer: Layer) -> str:
    text = f"{layer.updates:,}"
    if layer.expected_updates not in (None, layer.updates):
        text += f" of {layer.expected_updates:,}"
    return f"{text}, frozen" if layer.frozen else text
