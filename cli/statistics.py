"""Commands that give a model new population statistics, and that check a frozen model."""

from typing import Annotated

import typer

from cli.documents import override, read_json
from cli.output import number, percent, show_json, show_table
from cli.watching import show_made
from core.errors import InputInvalid
from evenkeel import Client, Job, Verification

ModelName = Annotated[str, typer.Argument(help="The model's name.", metavar="MODEL")]
OfVersion = Annotated[int | None, typer.Option(help="This version.")]
OfAlias = Annotated[str | None, typer.Option(help="The version of this alias; `latest` unless given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def recalibrate(
    model: ModelName,
    request: Annotated[
        str | None, typer.Argument(help="File with the request as JSON, or - for standard input.", metavar="[FILE|-]")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A field of the request, as path=value.", metavar="PATH=VALUE")
    ] = None,
    version: OfVersion = None,
    alias: OfAlias = None,
    publish_alias: Annotated[str | None, typer.Option(help="Move this alias to the new version.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show progress until the job ends.")] = False,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key makes the same job.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model's population statistics on other data: a new version with the same weights.

    For instance: evenkeel recalibrate digits --set dataset.source=digits --set dataset.split_seed=7 --watch
    """
    document = override(read_json(request) if request is not None else {}, set_ or [])
    dataset = document.pop("dataset", None)
    if not isinstance(dataset, dict):
        raise InputInvalid("no data set: give a file, or fields, for instance --set dataset.source=digits")
    with Client() as client:
        job = client.recalibrate(
            model,
            dataset,
            version=version,
            alias=alias,
            publish_alias=publish_alias,
            idempotency_key=key,
            **document,
        )
        code = show_made(client, job, as_json, watch)
        if watch and not as_json and code == 0:
            _show_change(client.job(job))
        raise typer.Exit(code)


def verify(model: ModelName, version: OfVersion = None, alias: OfAlias = None, as_json: AsJson = False) -> None:
    """Check a frozen model again: files, parity, batch invariance. Exit code 0: all is as it must be, 1: not."""
    with Client() as client:
        checked = client.verify(model, version, alias)
    if as_json:
        show_json(checked.raw)
    else:
        show_table(("check", "", "figures"), _rows(checked), title=f"{checked.model} version {checked.version}")
    raise typer.Exit(0 if checked.passed else 1)


def _rows(checked: Verification) -> list[tuple[str, str, str]]:
    rows = [
        (f"{name} file", _word(file["intact"]), file.get("message") or file["sha256"][:12])
        for name, file in checked.files.items()
    ]
    parity, invariance = checked.parity, checked.batch_invariance
    if parity is not None:
        figures = f"differs by {number(parity['maximum_difference'])}, {number(parity['tolerance'])} is allowed"
        rows.append(("parity", _word(parity["passed"]), f"{figures}; {parity['rows']} rows"))
    elif checked.parity_reason:
        rows.append(("parity", "-", checked.parity_reason))
    if invariance is not None:
        figures = f"{len(invariance['sizes'])} batch sizes up to {max(invariance['sizes'])}"
        rows.append(("batch invariance", _word(invariance["passed"]), figures))
    if checked.error:
        rows.append(("graph", _word(False), checked.error))
    return rows


def _word(fine: bool) -> str:
    return "passed" if fine else "FAILED"


def _show_change(job: Job) -> None:
    """Scores on the new data, under the statistics before and after."""
    result = job.result or {}
    before, after = result.get("before"), result.get("after")
    if before is None or after is None:
        print(result.get("not_compared") or "")
        return
    show = {"accuracy": percent}
    rows = ((name, *(show.get(name, number)(scores[name]) for scores in (before, after))) for name in after)
    show_table(("test score", "before", "after"), rows, title=f"{result['model']} version {result['version']}")
