"""Commands on data sets that one brings."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import age, console, show_json, show_table
from core.errors import InputInvalid
from evenkeel import Client, Dataset, DatasetVersion

app = typer.Typer(help="Upload, list and delete data sets of your own.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="The data set's name.")]
TASKS, KINDS = ("classification", "regression"), ("image", "table", "sequence")


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="An .npz file with x and y, or a .csv file with column names.")],
    name: Annotated[str, typer.Option(help="What jobs will call it.")],
    target: Annotated[str | None, typer.Option(help="Of CSV: the column to predict; the last unless given.")] = None,
    categories: Annotated[
        list[str] | None, typer.Option(help="Of CSV: a column of codes that are no quantities. May be repeated.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="classification or regression; by the targets unless given.")] = None,
    kind: Annotated[str | None, typer.Option(help="image, for an x of rows, height, width.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a data set, or a new version of one.

    Then: evenkeel submit --set dataset.source=uploaded --set dataset.name=NAME --set network.family=mlp
    """
    for option, value, known in (("--task", task, TASKS), ("--kind", kind, KINDS)):
        if value is not None and value not in known:
            raise InputInvalid(f"{option} {value!r} is unknown: choose from {', '.join(known)}")
    with Client() as client:
        found = client.datasets.upload(
            name,
            file,
            task=task,  # type: ignore[arg-type]
            kind=kind,  # type: ignore[arg-type]
            target=target,
            categories=categories,
        )
    if as_json:
        show_json(found.raw)
        return
    newest = found.newest
    console().print(f"{found.name} version {newest.version}: {newest.rows} rows, {_what(newest)}", markup=False)


@app.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """List data sets."""
    with Client() as client:
        found = client.datasets.list()
    if as_json:
        show_json([dataset.raw for dataset in found])
        return
    show_table(
        ("data set", "newest", "rows", "holds", "uploaded"),
        (_row(dataset) for dataset in found),
    )


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Look at the versions of a data set."""
    with Client() as client:
        versions = client.datasets.versions(name)
    if as_json:
        show_json([version.raw for version in versions])
        return
    show_table(
        ("version", "rows", "test rows", "holds", "columns", "sha256", "uploaded"),
        (
            (
                str(version.version),
                str(version.rows),
                "-" if version.test_rows is None else str(version.test_rows),
                _what(version),
                _few(version.columns),
                version.sha256[:12],
                age(version.created_at),
            )
            for version in versions
        ),
    )


@app.command()
def delete(
    name: Name, version: Annotated[int | None, typer.Option(help="Only this version; all unless given.")] = None
) -> None:
    """Delete a data set and its files; refused while a job needs it."""
    with Client() as client:
        client.datasets.delete(name, version)
    console().print(f"{name}{'' if version is None else f' version {version}'} is deleted", markup=False)


def _row(dataset: Dataset) -> tuple[str, ...]:
    newest = dataset.newest
    return (dataset.name, str(newest.version), str(newest.rows), _what(newest), age(newest.created_at))


def _what(version: DatasetVersion) -> str:
    shape = " × ".join(str(size) for size in version.input_shape)
    goal = f"{len(version.labels)} classes ({_few(version.labels)})" if version.labels else "a value to predict"
    return f"{version.kind} of {shape}, {goal}"


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "") or "-"
