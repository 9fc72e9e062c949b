"""The command `evenkeel`."""

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from cli import (
    architectures,
    comparisons,
    data,
    demo,
    ensembles,
    jobs,
    keys,
    layers,
    models,
    recipes,
    server,
    statistics,
)
from cli.output import complain
from core.errors import EvenkeelError
from core.settings import load_settings
from evenkeel import EvenkeelClientError

app = typer.Typer(
    help="Training as a service for batch-normalized networks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "The service": (demo.demo, server.up, server.api, server.serve, server.worker, server.migrate),
    "Jobs": (
        jobs.submit,
        jobs.watch,
        jobs.jobs,
        jobs.job,
        jobs.metrics,
        layers.layers,
        jobs.logs,
        jobs.cancel,
        jobs.pause,
        jobs.resume,
        jobs.retry,
        jobs.fork,
        architectures.architectures,
    ),
    "Models": (
        models.models,
        models.predict,
        models.download,
        layers.population,
        ensembles.ensemble,
        statistics.recalibrate,
        statistics.verify,
    ),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(data.app, name="data", rich_help_panel="Jobs")
app.add_typer(comparisons.app, name="compare", rich_help_panel="Comparisons")
app.add_typer(recipes.app, name="recipe", rich_help_panel="Comparisons")
app.add_typer(keys.app, name="keys", rich_help_panel="The service")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version("evenkeel"))
        raise typer.Exit


@app.callback()
def _options(
    wanted: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Runs the command line. Whatever goes wrong is one line on standard error and exit code 1."""
    try:
        app()
    except EvenkeelClientError as error:
        named = (f"{part.pointer}: {part.message}" for part in error.errors if part.message not in error.message)
        complain("; ".join([error.message, *named]))
    except EvenkeelError as error:
        complain(error.message)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - else the interpreter complains as it ends
    except OSError as error:
        complain(str(error))
    except Exception as error:
        if load_settings().log_level.lower() == "debug":
            raise
        complain(
            f"this is a defect of evenkeel ({type(error).__name__}: {error}); EVENKEEL_LOG_LEVEL=debug shows where"
        )
    sys.exit(1)
