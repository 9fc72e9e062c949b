"""Commands on recipes."""

import json
from typing import Annotated, Any, Literal

import typer

from cli.comparisons import EXIT_CODES, watch_members
from cli.documents import values
from cli.output import coloured, console, show_json, show_table
from core.errors import InputInvalid
from evenkeel import Client, Recipe

app = typer.Typer(help="Run the paper's experiments, and questions of its readers.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The recipe's name.", metavar="NAME")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List all recipes."""
    with Client() as client:
        found = client.recipes.list()
    if as_json:
        show_json([recipe.raw for recipe in found])
        return
    show_table(("question", "name", ""), ((recipe.question, recipe.name, recipe.title) for recipe in found))


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show a recipe: what is claimed, how it is read, and what it runs."""
    with Client() as client:
        recipe = client.recipes.get(name)
    if as_json:
        show_json(recipe.raw)
        return
    _tell(recipe)
    for size, facts in recipe.sizes.items():
        print(f"\n{size}: {facts['about']}")
        print(json.dumps(facts["comparison"], indent=2, ensure_ascii=False))


@app.command()
def run(
    name: Name,
    size: Annotated[Literal["quick", "full"], typer.Option(help="How large.")] = "quick",
    data: Annotated[
        str | None,
        typer.Option(help="A source, or a data set as JSON.", metavar="SOURCE|JSON"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A field of the comparison, for instance seeds=5.", metavar="PATH=VALUE"),
    ] = None,
    watch: Annotated[bool, typer.Option(help="Show progress until all members have ended, then the report.")] = True,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key makes the same comparison.")] = None,
) -> None:
    """Run a recipe: members progress live, the report follows. Exit code 2 when it was cancelled."""
    with Client() as client:
        recipe = client.recipes.get(name)
        made = client.recipes.run(name, size, _data_set(data), values(set_ or []), key)
        if watch:
            _tell(recipe)
        console().print(made.id, coloured(made.status), made.name, f"{made.members['total']} members", sep="  ")
        if watch:
            ended = watch_members(made)
            print(made.report_as("md"), end="")
            raise typer.Exit(EXIT_CODES.get(ended.status, 1))


def _tell(recipe: Recipe) -> None:
    print(f"{recipe.question}: {recipe.title}")
    print(f"Claim: {recipe.claim}")
    print(f"Reading: {recipe.reading}")


def _data_set(given: str | None) -> Any:
    if given is None or not given.lstrip().startswith("{"):
        return given
    try:
        return json.loads(given)
    except ValueError as error:
        raise InputInvalid(f"--data {given!r:.60} is neither the name of a source nor JSON ({error})") from None
