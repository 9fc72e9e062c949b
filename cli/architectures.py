"""The command on network families."""

import json
from collections.abc import Mapping
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
    schema = entry["json_schema"]
    show_table(
        ("field", "default", "values", "meaning"),
        (
            (
                name,
                json.dumps(field["default"]) if "default" in field else "",
                _values(field, schema.get("$defs", {})),
                field.get("description", "").split("\n\n")[0].replace("\n", " "),
            )
            for name, field in schema["properties"].items()
            if name != "family"
        ),
    )
    console().print("example:", highlight=False)
    show_json(entry["example"]["network"])


def _values(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a field of a JSON schema may be, for instance `relu | tanh`, `1 … 16` or `list of 1 … 4096`."""
    if "$ref" in field:
        return _values(definitions[field["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in field:
        return " | ".join(dict.fromkeys(_values(part, definitions) for part in field["anyOf"]))
    if "oneOf" in field or field.get("type") == "object":
        return f"object with {', '.join(field['properties'])}" if "properties" in field else "object"
    if "enum" in field or "const" in field:
        return " | ".join(map(str, field.get("enum", [field.get("const")])))
    if field.get("type") == "array":
        return f"list of {_values(field.get('items', {}), definitions)}"
    if field.get("type") == "boolean":
        return "true | false"
    return _range(field)


def _range(field: Mapping[str, Any]) -> str:
    """Of numbers; other types by their names."""
    above = (
        f"{field['minimum']:g}"
        if "minimum" in field
        else f"over {field['exclusiveMinimum']:g}"
        if "exclusiveMinimum" in field
        else ""
    )
    below = (
        f"{field['maximum']:g}"
        if "maximum" in field
        else f"under {field['exclusiveMaximum']:g}"
        if "exclusiveMaximum" in field
        else ""
    )
    bounds = f"{above} … {below}" if above or below else ""
    return bounds.strip() or str(field.get("type", ""))
