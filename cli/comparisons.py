"""Commands on comparisons."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.documents import override, read_json
from cli.output import age, coloured, complain, console, number, percent, show_json, show_table
from core.errors import InputInvalid
from evenkeel import Client, Comparison, Job

app = typer.Typer(help="Compare variants of a job over paired seeds.", no_args_is_help=True)
ComparisonId = Annotated[str, typer.Argument(help="The comparison's id.", metavar="COMPARISON")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Format = Literal["md", "csv", "html", "svg", "json"]
BAR_CELLS = 16
EXIT_CODES = {"succeeded": 0, "cancelled": 2}


@app.command()
def run(
    file: Annotated[str, typer.Argument(help="Comparison spec as JSON, or - for standard input.", metavar="FILE|-")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A field of the spec, as path=value.", metavar="PATH=VALUE")
    ] = None,
    watch: Annotated[bool, typer.Option(help="Show progress until all members have ended, then the report.")] = True,
    check: Annotated[bool, typer.Option("--check", help="Say what it would cost; submit nothing.")] = False,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key makes the same comparison.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a comparison: members progress live, the report follows. Exit code 2 when it was cancelled."""
    document = read_json(file)
    if not isinstance(document, dict):
        raise InputInvalid(f"a comparison is a JSON object, and {file} holds a {type(document).__name__}")
    document = override(document, set_ or [])
    with Client() as client:
        if check:
            show_json(client.comparisons.validate(document))
            return
        made = client.comparisons.submit(document, key)
        if as_json:
            show_json(made.raw)
        else:
            console().print(made.id, coloured(made.status), made.name, f"{made.members['total']} members", sep="  ")
        if watch:
            watch_members(made)
            print(made.report_as("md"), end="")
            raise typer.Exit(EXIT_CODES.get(made.refresh().status, 1))


@app.command()
def show(comparison_id: ComparisonId, as_json: AsJson = False) -> None:
    """Show a comparison and its members."""
    with Client() as client:
        here = client.comparisons.get(comparison_id)
        if as_json:
            show_json(here.raw)
            return
        console().print(here.id, coloured(here.status), here.name, _counted(here), sep="  ")
        console().print(_members_table(here, here.jobs(latest_metrics=True)))


@app.command()
def watch(comparison_id: ComparisonId) -> None:
    """Show the progress of all members until they have ended."""
    with Client() as client:
        ended = watch_members(client.comparisons.get(comparison_id))
        raise typer.Exit(EXIT_CODES.get(ended.status, 1))


@app.command()
def report(
    comparison_id: ComparisonId,
    format: Annotated[Format, typer.Option(help="How it is written.")] = "md",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file.")] = None,
) -> None:
    """Print the report, over what is recorded now."""
    with Client() as client:
        text = _report_text(client, comparison_id, format)
    if output is None:
        sys.stdout.write(text)
        return
    output.write_text(text)
    print(output)


@app.command()
def cancel(comparison_id: ComparisonId) -> None:
    """Stop all members."""
    with Client() as client:
        here = client.comparisons.cancel(comparison_id)
        console().print(here.id, coloured(here.status), here.name, _counted(here), sep="  ")


@app.command("list")
def list_comparisons(
    name: Annotated[str | None, typer.Option(help="Only comparisons of this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List comparisons, newest first."""
    with Client() as client:
        found = client.comparisons.list(limit, name)
    if as_json:
        show_json([item.raw for item in found])
        return
    show_table(
        ("id", "name", "status", "progress", "members", "created"),
        (
            (item.id, item.name, coloured(item.status), percent(item.fraction), _counted(item), age(item.created_at))
            for item in found
        ),
    )


def _report_text(client: Client, comparison_id: str, format: Format) -> str:
    if format == "json":
        return json.dumps(client.comparisons.report(comparison_id), indent=2, ensure_ascii=False) + "\n"
    return client.comparisons.report_as(comparison_id, format)


def watch_members(comparison: Comparison) -> Comparison:
    """A table of members that is kept up to date on a terminal; elsewhere a line whenever something has moved."""
    on = console()
    if not on.is_terminal:
        for here in comparison.watch():
            print(f"{here.id}  {here.status:<10}  {percent(here.fraction):>7}  {_counted(here)}", flush=True)
        return here
    with Live(console=on, refresh_per_second=4) as live:
        for here in comparison.watch():
            live.update(_members_table(here, here.jobs(latest_metrics=True), on.height - 4))
    if here.members["failed"]:
        complain(
            f"{here.members['failed']} members failed: see `evenkeel compare show {here.id}`, then retry those jobs"
        )
    return here


def _members_table(comparison: Comparison, jobs: Sequence[Job], most: int | None = None) -> Table:
    """A row for each member; of more than `most` those that run, then those that wait or have ended last."""
    order = {"running": 0, "cancelling": 0, "failed": 1, "queued": 2}
    shown = jobs if most is None or len(jobs) <= most else sorted(jobs, key=lambda job: order.get(job.status, 3))[:most]
    title = f"{comparison.name}  {comparison.status}  {percent(comparison.fraction)}  {_counted(comparison)}"
    table = Table("variant", "seed", "status", "", "step", comparison.metric, title=title, box=None, pad_edge=False)
    for job in shown:
        membership = job.raw["comparison"]
        latest = job.latest_metrics.get(comparison.metric)
        share = percent(latest) if comparison.metric.endswith("accuracy") else number(latest)
        progress = job.progress
        table.add_row(
            Text(membership["variant"]),
            str(membership["seed"]),
            coloured(_outcome(job)),
            _bar(progress.fraction),
            f"{progress.step:,}/{progress.steps:,}",
            share,
        )
    return table


def _outcome(job: Job) -> str:
    code = (job.error or {}).get("code")
    return "diverged" if code in ("non_finite_loss", "non_finite_statistics") else job.status


def _bar(fraction: float) -> str:
    full = round(fraction * BAR_CELLS)
    return "█" * full + "░" * (BAR_CELLS - full)


def _counted(comparison: Comparison) -> str:
    parts = [f"{count} {name}" for name, count in comparison.members.items() if name != "total" and count]
    return f"{comparison.members['total']} members: {', '.join(parts)}"
