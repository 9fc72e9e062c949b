"""Recipes from the command line on digits: three of them small, all others in their quick size."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.recipes import recipes
from cli.hosting import service
from cli.main import app
from evenkeel import Client

SMALL = {
    "figure-1": ["base.training.steps=60", "base.training.evaluate_every=20"],
    "learning-rate": [
        "base.training.steps=40",
        "base.training.evaluate_every=20",
        'vary={"batch_norm": [true, false], "optimizer.learning_rate": [0.5, 100.0]}',
    ],
    "when-it-fails": ["base.training.steps=40", "base.training.evaluate_every=20", "seeds=1"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    with service(folder):
        yield folder


@pytest.fixture
def evenkeel(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("EVENKEEL_HOME", str(home))
    return lambda *arguments: CliRunner().invoke(app, ["recipe", *arguments], catch_exceptions=False)


def ran(home: Path, evenkeel: Callable[..., Any], name: str, *options: str) -> str:
    """What is printed, once it is certain that no member failed for a reason of its own."""
    result = evenkeel("run", name, "--data", "digits", *options)
    assert result.exit_code == 0, result.output
    with Client(home=home) as client:
        newest = client.comparisons.list(1, name)[0]
    assert newest.members["succeeded"] + newest.members["diverged"] == newest.members["total"], newest.members
    return str(result.stdout)


@pytest.mark.parametrize("name", SMALL)
def test_a_recipe_runs_to_its_report(home: Path, evenkeel: Callable[..., Any], name: str) -> None:
    options = [part for text in SMALL[name] for part in ("--set", text)]
    printed = ran(home, evenkeel, name, *options)

    assert f"Claim: {recipes()[name].claim}" in printed
    assert f"# {name}" in printed
    assert "| variant |" in printed


def test_recipes_are_listed_and_shown(evenkeel: Callable[..., Any]) -> None:
    assert all(name in evenkeel("list").stdout for name in recipes())
    shown = evenkeel("show", "cost").stdout
    assert "Q17" in shown
    assert '"maximum_running": 1' in shown


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", recipes())
def test_a_recipe_runs_in_its_quick_size(home: Path, evenkeel: Callable[..., Any], name: str) -> None:
    assert "| variant |" in ran(home, evenkeel, name)
