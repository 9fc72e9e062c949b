"""Commands on API keys."""

from typing import Annotated

import typer

from cli.output import age, console, show_json, show_table
from cli.server import admin_key
from core.credentials import ALL_SCOPES
from core.errors import InputInvalid
from evenkeel import Client

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)
app.command("admin")(admin_key)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        list[str] | None, typer.Option(help=f"May be repeated; all unless given: {', '.join(ALL_SCOPES)}.")
    ] = None,
    expires_at: Annotated[str | None, typer.Option(help="RFC 3339, for instance 2030-01-01T00:00:00Z.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Create a key and print it; it is shown only now."""
    unknown = sorted(set(scope or ()) - set(ALL_SCOPES))
    if unknown:
        raise InputInvalid(f"there is no scope {', '.join(unknown)}: choose from {', '.join(ALL_SCOPES)}")
    with Client() as client:
        key = client.create_key(name, scope or ALL_SCOPES, expires_at)
    if as_json:
        show_json(key.raw)
        return
    print(key.text)


@app.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List keys, without their secrets."""
    with Client() as client:
        found = client.keys()
    if as_json:
        show_json([key.raw for key in found])
        return
    show_table(
        ("id", "name", "scopes", "created", "state"),
        (
            (key.id, key.name, " ".join(key.scopes), age(key.created_at), "revoked" if key.revoked_at else "active")
            for key in found
        ),
    )


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id, key_….")]) -> None:
    """Make a key worthless, within seconds."""
    with Client() as client:
        client.revoke_key(key_id)
    console().print(f"{key_id} is revoked")
