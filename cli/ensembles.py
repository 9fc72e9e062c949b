"""The command that makes several models answer as one."""

from typing import Annotated, Any

import typer

from cli.output import number, percent, show_table
from cli.watching import show_made
from core.errors import InputInvalid
from evenkeel import Client, Job


def ensemble(
    model: Annotated[str, typer.Argument(help="The model that the ensemble becomes a version of.", metavar="MODEL")],
    members: Annotated[
        list[str],
        typer.Argument(help="A job, or a model: name, name:3 (its version 3) or name@alias.", metavar="MEMBER..."),
    ],
    alias: Annotated[str | None, typer.Option(help="Move this alias to the new version.")] = "latest",
    move: Annotated[bool, typer.Option("--move/--no-move", help="Whether an alias is moved.")] = True,
    watch: Annotated[bool, typer.Option("--watch", help="Show progress until the job ends.")] = False,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key makes the same job.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Average the answers of several models, and serve them as one.

    For instance: evenkeel ensemble together digits:1 digits:2 job_01m8abstqs6ana1w2h7jrbgvbq --watch
    """
    with Client() as client:
        job = client.ensemble(
            model, [_member(text) for text in members], alias=alias if move else None, idempotency_key=key
        )
        code = show_made(client, job, as_json, watch)
        if watch and not as_json and code == 0:
            _show_scores(client.job(job))
        raise typer.Exit(code)


def _member(text: str) -> dict[str, Any]:
    if text.startswith("job_"):
        return {"job_id": text}
    name, colon, version = text.partition(":")
    if colon and not version.isdecimal():
        raise InputInvalid(f"{text} names no version: write {name}:3, {name}@alias or {name}")
    if colon:
        return {"model": name, "version": int(version)}
    name, at, alias = text.partition("@")
    return {"model": name, "alias": alias} if at else {"model": name}


def _show_scores(job: Job) -> None:
    """Of each member and of all together, on the test split."""
    result = job.result or {}
    told = result["ensemble"]
    if told["not_compared"]:
        print(told["not_compared"])
        return
    names = [name for name in ("accuracy", "loss", "rmse", "r2") if name in result]
    rows = [(f"{item['model']} version {item['version']}", item["scores"]) for item in told["members"]]
    shown = [(who, *(_score(name, scores[name]) for name in names)) for who, scores in [*rows, ("together", result)]]
    show_table(("test score of", *names), shown, title=f"{result['model']} version {result['version']}")


def _score(name: str, value: float | None) -> str:
    return percent(value) if name == "accuracy" and value is not None else number(value)
