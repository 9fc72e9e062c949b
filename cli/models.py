"""Commands on models."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from cli.documents import read_json
from cli.output import age, console, number, percent, show_json, show_table
from core.errors import InputInvalid
from evenkeel import Client, Prediction

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SHOWN_PROBABILITIES = 3
SUFFIXES = {"probe": "probe.safetensors", "card": "json"}


def models(
    name: Annotated[str | None, typer.Argument(help="A model, to list its versions.", metavar="[MODEL]")] = None,
    as_json: AsJson = False,
) -> None:
    """List models, or the versions of one."""
    with Client() as client:
        if name is not None:
            versions = client.versions(name)
            if as_json:
                show_json([version.raw for version in versions])
                return
            show_table(
                ("version", "aliases", "job", "weights", "statistics", "recalibrated from", "created"),
                (
                    (
                        str(version.version),
                        ", ".join(version.aliases) or "-",
                        version.job_id,
                        version.weights_sha256[:12],
                        (version.statistics_sha256 or "-")[:12],
                        str((version.recalibrated_from or {}).get("version", "-")),
                        age(version.created_at),
                    )
                    for version in versions
                ),
            )
            return
        found = client.models()
    if as_json:
        show_json([model.raw for model in found])
        return
    show_table(
        ("model", "newest", "aliases", "created"),
        (
            (
                model.name,
                str(model.latest_version or "-"),
                ", ".join(f"{alias} → {version}" for alias, version in model.aliases.items()) or "-",
                age(model.created_at),
            )
            for model in found
        ),
    )


def download(
    model: Annotated[str, typer.Argument(help="The model's name.", metavar="MODEL")],
    format: Annotated[str, typer.Option(help="onnx, safetensors, probe or card.")] = "onnx",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; by default MODEL.onnx or the like.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="This version.")] = None,
    alias: Annotated[str | None, typer.Option(help="The version of this alias; `latest` unless given.")] = None,
) -> None:
    """Save a model's graph, weights, probe rows or card."""
    with Client() as client:
        content = client.download(model, format, version, alias)
    path = output or Path(f"{model}.{SUFFIXES.get(format, format)}")
    path.write_bytes(content)
    console().print(f"{path}  {len(content):,} bytes  sha256 {hashlib.sha256(content).hexdigest()}")


def predict(
    model: Annotated[str, typer.Argument(help="The model's name.", metavar="MODEL")],
    rows: Annotated[str, typer.Option(help='JSON file with rows or {"rows": …}, or - for standard input.')],
    version: Annotated[int | None, typer.Option(help="This version.")] = None,
    alias: Annotated[str | None, typer.Option(help="The version of this alias; `latest` unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model. Rows are in the data's own units: pixels as in the image, columns as in the file."""
    document = read_json(rows)
    given = document.get("rows") if isinstance(document, dict) else document
    if not isinstance(given, list):
        name = "standard input" if rows == "-" else rows
        raise InputInvalid(f'{name} holds no rows: write [[…], …] or {{"rows": [[…], …]}}')
    with Client() as client:
        answer = client.predict(model, given, version, alias)
    if as_json:
        show_json(
            {
                "model": answer.model,
                "version": answer.version,
                "statistics_sha256": answer.statistics_sha256,
                "predictions": [_raw(prediction) for prediction in answer.predictions],
            }
        )
        return
    show_table(
        ("row", "answer", "probabilities"),
        (
            (str(index), _answer(prediction), _likeliest(prediction))
            for index, prediction in enumerate(answer.predictions)
        ),
        title=f"{answer.model} version {answer.version}",
    )


def _answer(prediction: Prediction) -> str:
    return prediction.label if prediction.label is not None else number(prediction.value, 6)


def _likeliest(prediction: Prediction) -> str:
    ranked = sorted((prediction.probabilities or {}).items(), key=lambda item: -item[1])
    return ", ".join(f"{label} {percent(share)}" for label, share in ranked[:SHOWN_PROBABILITIES])


def _raw(prediction: Prediction) -> dict[str, object]:
    if prediction.label is None:
        return {"value": prediction.value}
    return {"label": prediction.label, "probabilities": dict(prediction.probabilities or {})}
