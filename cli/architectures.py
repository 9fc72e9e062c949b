"""The command on network families."""

from typing import Annotated, Any

import typer

from cli.output import console, show_json, show_table
from core.errors import InputInvalid
from evenkeel import Client


def architectures(
    family: Annotated[
        str | None, typer.Argument(help="One family: its fields and an example.", metavar="[FAMILY]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the network families, or show one with its fields."""
    with Client() as client:
        families: list[dict[str, Any]] = client.architectures()["data"]
    if family is not None:
        families = [entry for entry in families if entry["family"] == family] or _refuse(family, families)
    if as_json:
        show_json(families)
    elif family is None:
        show_table(
            ("family", "parameters", "takes", "description"),
            (
                (entry["family"], f"{entry['parameters']:,}", ", ".join(entry["inputs"]), entry["description"])
                for entry in families
            ),
        )
    else:
        _show(families[0])


def _refuse(family: str, families: list[dict[str, Any]]) -> list[dict[str, Any]]:
    known = ", ".join(entry["family"] for entry in families)
    raise InputInvalid(f"there is no family {family!r}: give one of {known}")


def _show(entry: dict[str, Any]) -> None:
    console().print(entry["description"], highlight=False)
    fields = entry["json_schema"]["properties"].items()
    show_table(
        ("field", "default", "meaning"),
        (
            (name, str(field.get("default", "")), field.get("description", "").split("\n\n")[0].replace("\n", " "))
            for name, field in fields
            if name != "family"
        ),
    )
    console().print("example:", highlight=False)
    show_json(entry["example"]["network"])
