"""Commands on jobs."""

import sys
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from cli.checking import show_check
from cli.documents import override, pairs, read_json, values
from cli.output import age, coloured, duration, number, percent, show_json, show_table, spark
from cli.watching import show_made, watch_one
from core.errors import InputInvalid
from evenkeel import Client, Job

JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Watch = Annotated[bool, typer.Option("--watch", help="Show progress until the job ends.")]
OBSERVED = "observe/"


def submit(
    spec: Annotated[
        str | None, typer.Argument(help="File with a job spec as JSON, or - for standard input.", metavar="[FILE|-]")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A field of the spec, as path=value.", metavar="PATH=VALUE"),
    ] = None,
    watch: Watch = False,
    check: Annotated[bool, typer.Option("--check", help="Say what it would cost; submit nothing.")] = False,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key makes the same job.")] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job.

    Without a file: evenkeel submit --set dataset.source=digits --set network.family=mlp --watch
    """
    if spec is None and not set_:
        raise InputInvalid(
            "nothing to submit: give a file, - for standard input, or fields, for instance "
            "--set dataset.source=digits --set network.family=mlp"
        )
    document = read_json(spec) if spec is not None else {}
    if not isinstance(document, dict):
        raise InputInvalid(f"a job spec is a JSON object, and {spec} holds a {type(document).__name__}")
    document = override(document, set_ or [])
    with Client() as client:
        if check:
            checked = client.validate(document)
            show_json(checked.raw) if as_json else show_check(checked)
            return
        raise typer.Exit(show_made(client, client.submit(document, key), as_json, watch))


def watch(job_id: JobId) -> None:
    """Show a job's progress live. Exit code 0: succeeded, 1: failed, 2: cancelled."""
    with Client() as client:
        raise typer.Exit(watch_one(client, client.job(job_id)))


def jobs(
    status: Annotated[str | None, typer.Option(help="Only these, separated by commas.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    family: Annotated[str | None, typer.Option(help="Only networks of this family.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", help="Only with this metadata.", metavar="KEY=VALUE")
    ] = None,
    comparison: Annotated[
        str | None, typer.Option(help="Only members of this comparison; none: only of no comparison.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with Client() as client:
        found = client.jobs(
            status=status,
            name=name,
            family=family,
            metadata=pairs(metadata or []),
            comparison=comparison,
            latest_metrics=True,
            limit=limit,
        )
    if as_json:
        show_json([job.raw for job in found])
        return
    show_table(
        ("id", "name", "status", "progress", "test score", "created"),
        (
            (
                job.id,
                job.name,
                coloured(job.status),
                f"{job.progress.step:,}/{job.progress.steps:,}",
                _score(job),
                age(job.created_at),
            )
            for job in found
        ),
    )


def job(job_id: JobId, as_json: AsJson = False) -> None:
    """Show one job."""
    with Client() as client:
        here = client.job(job_id)
    if as_json:
        show_json(here.raw)
        return
    rows: list[tuple[str, str | Text]] = [
        ("id", here.id),
        ("name", here.name),
        ("status", coloured(here.status).append(f" ({here.status_reason})" if here.status_reason else "")),
        ("phase", here.phase or "-"),
        ("attempt", str(here.attempt)),
        ("progress", f"step {here.progress.step:,} of {here.progress.steps:,} ({percent(here.progress.fraction)})"),
        ("time left", duration(here.progress.eta_seconds)),
        ("created", here.created_at.isoformat(timespec="seconds")),
    ]
    if here.forked_from is not None:
        rows.append(("forked from", f"{here.forked_from['job_id']}, step {here.forked_from['step']:,}"))
    rows += [(name, number(value, 6)) for name, value in sorted(here.latest_metrics.items())]
    rows += [row for name, value in (here.result or {}).items() for row in _rows(f"result {name}", value)]
    rows += [row for name, value in (here.error or {}).items() for row in _rows(f"error {name}", value)]
    show_table(("", ""), _with_one_row_of_observed(here.id, rows))


def metrics(
    job_id: JobId,
    name: Annotated[list[str] | None, typer.Option(help="Only this series; may be repeated.")] = None,
    max_points: Annotated[int, typer.Option(min=2, help="At most so many points a series.")] = 2000,
    as_json: AsJson = False,
) -> None:
    """Show a job's metrics, one line a series."""
    with Client() as client:
        found = client.metrics(job_id, name, max_points=max_points)
        unknown = [wanted for wanted in name or () if not found[wanted].steps]
        if unknown:
            known = ", ".join(sorted(client.metrics(job_id, max_points=2))) or "none yet"
            raise InputInvalid(f"{job_id} has no points of {', '.join(unknown)}: its series are {known}")
    if as_json:
        # Not finite values become text, because JSON has no word for them.
        show_json(
            {
                series.name: {"steps": series.steps, "values": [_plain(value) for value in series.values]}
                for series in found.values()
            }
        )
        return
    show_table(
        ("series", "points", "first", "last", "lowest", "highest", ""),
        (
            (
                series.name,
                f"{series.total_points:,}",
                number(series.values[0]),
                number(series.values[-1]),
                number(min(series.values)),
                number(max(series.values)),
                spark(series.values),
            )
            for series in sorted(found.values(), key=lambda series: series.name)
            if series.values
        ),
    )


def logs(job_id: JobId) -> None:
    """Print a job's log."""
    with Client() as client:
        sys.stdout.write(client.logs(job_id))


def cancel(
    job_id: JobId,
    force: Annotated[bool, typer.Option(help="At once, without a last checkpoint.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop a job."""
    with Client() as client:
        show_made(client, client.cancel(job_id, force), as_json, watch=False)


def pause(job_id: JobId, as_json: AsJson = False) -> None:
    """Put a running job aside, with a checkpoint."""
    with Client() as client:
        show_made(client, client.pause(job_id), as_json, watch=False)


def resume(job_id: JobId, watch: Watch = False, as_json: AsJson = False) -> None:
    """Put a paused job back into the queue."""
    with Client() as client:
        raise typer.Exit(show_made(client, client.resume(job_id), as_json, watch))


def retry(job_id: JobId, watch: Watch = False, as_json: AsJson = False) -> None:
    """Make a new job out of one that has ended."""
    with Client() as client:
        raise typer.Exit(show_made(client, client.retry(job_id), as_json, watch))


def fork(
    job_id: JobId,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="What differs, as path=value.", metavar="PATH=VALUE")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="newest, best, or a checkpoint's id.")] = "newest",
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Go on from a job's checkpoint in a new job, with some fields changed."""
    with Client() as client:
        fresh = client.fork(job_id, values(set_ or []), checkpoint)
        raise typer.Exit(show_made(client, fresh, as_json, watch))


def _score(job: Job) -> str:
    """Of the test split, as the model answers once there is one, else as of the newest evaluation."""
    latest = {name.removeprefix("test/"): value for name, value in job.latest_metrics.items()}
    known = latest | dict(job.result or {})
    return f"r² {number(known['r2'], 3)}" if "r2" in known else percent(known.get("accuracy"))


def _with_one_row_of_observed(job_id: str, rows: list[tuple[str, str | Text]]) -> Iterator[tuple[str, str | Text]]:
    """What a job observes is dozens of series or hundreds: their number stands where they would."""
    count = sum(name.startswith(OBSERVED) for name, _ in rows)
    for name, value in rows:
        if not name.startswith(OBSERVED):
            yield name, value
        elif count:
            yield OBSERVED.rstrip("/"), f"{count} series, shown by: evenkeel metrics {job_id}"
            count = 0


def _rows(name: str, value: object) -> Iterator[tuple[str, str]]:
    """A row a figure; what holds groups of figures, a row a group."""
    if isinstance(value, dict) and any(isinstance(part, dict) for part in value.values()):
        for key, part in value.items():
            yield from _rows(f"{name} {key}", part)
    else:
        yield name, _shown(value)


def _plain(value: float) -> float | str:
    return value if value - value == 0.0 else str(value)


def _shown(value: object) -> str:
    match value:
        case dict():
            return ", ".join(f"{key} {_shown(part)}" for key, part in value.items())
        case list():
            return "; ".join(map(_shown, value)) or "-"
        case bool():
            return "yes" if value else "no"
        case float() | None:
            return number(value, 6)
        case _:
            return str(value)
