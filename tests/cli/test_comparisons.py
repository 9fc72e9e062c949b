"""`evenkeel compare` against a real service."""

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cli import comparisons
from cli.hosting import service
from cli.main import app
from evenkeel import Client

COMPARISON = {
    "name": "flowers",
    "base": {
        "dataset": {"source": "iris"},
        "network": {"family": "mlp", "hidden": [8]},
        "training": {"steps": 60, "batch_size": 30, "evaluate_every": 20},
    },
    "vary": {"batch_norm": [True, False]},
    "seeds": 2,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    with service(folder):
        yield folder


@pytest.fixture
def evenkeel(home, monkeypatch):
    monkeypatch.setenv("EVENKEEL_HOME", str(home))
    return lambda *arguments, stdin=None: CliRunner().invoke(app, list(arguments), input=stdin, catch_exceptions=False)


@pytest.fixture(scope="module")
def ended(home):
    with Client(home=home) as client:
        done = client.comparisons.submit(COMPARISON).wait(100)
        assert done.status == "succeeded"
        return done.id


def test_a_comparison_runs_to_its_report(evenkeel):
    result = evenkeel("compare", "run", "-", "--set", "seeds=1", stdin=json.dumps(COMPARISON))

    assert result.exit_code == 0
    assert result.stdout.startswith("cmp_")
    assert "2 members: 2 succeeded" in result.stdout
    assert "# flowers" in result.stdout
    assert "one seed: no interval" in result.stdout


def test_a_check_submits_nothing(evenkeel, home, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(COMPARISON))
    with Client(home=home) as client:
        before = len(client.comparisons.list(limit=1000))

        plan = json.loads(evenkeel("compare", "run", str(tmp_path / "c.json"), "--check").stdout)

        assert plan["members"] == 4
        assert len(client.comparisons.list(limit=1000)) == before


def test_a_comparison_and_its_members_are_shown_and_listed(evenkeel, ended):
    shown, listed = evenkeel("compare", "show", ended), evenkeel("compare", "list", "--name", "flowers")

    assert shown.stdout.count("batch_norm=true") == 2
    assert "60/60" in shown.stdout
    assert ended in listed.stdout
    assert json.loads(evenkeel("compare", "show", ended, "--json").stdout)["id"] == ended


@pytest.mark.parametrize(
    ("format", "beginning"),
    [("md", "# flowers"), ("csv", "variant,"), ("html", "<!doctype"), ("svg", "<svg"), ("json", "{")],
)
def test_a_report_is_printed_or_written_in_each_format(evenkeel, ended, tmp_path, format, beginning):
    printed = evenkeel("compare", "report", ended, "--format", format).stdout
    evenkeel("compare", "report", ended, "--format", format, "-o", str(tmp_path / "report"))

    assert printed.startswith(beginning)
    assert (tmp_path / "report").read_text() == printed


def test_a_cancelled_comparison_makes_exit_code_2(evenkeel):
    endless = COMPARISON | {"base": COMPARISON["base"] | {"training": {"steps": 1_000_000, "batch_size": 30}}}
    made = json.loads(evenkeel("compare", "run", "-", "--no-watch", "--json", stdin=json.dumps(endless)).stdout)

    cancelled = evenkeel("compare", "cancel", made["id"])
    watched = evenkeel("compare", "watch", made["id"])

    assert cancelled.exit_code == 0
    assert watched.exit_code == 2


def test_the_table_of_members_shows_running_ones_first_when_not_all_fit(home, ended):
    with Client(home=home) as client:
        here = client.comparisons.get(ended)
        table = comparisons._members_table(here, here.jobs(), most=2)

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)

    assert table.row_count == 2
    assert "████" in console.export_text()


def test_a_member_is_forked_and_says_where_it_came_from(evenkeel, home, ended):
    with Client(home=home) as client:
        source = client.comparisons.members(ended)[0]

    result = evenkeel("fork", source.id, "--set", "training.steps=80", "--set", "name=longer", "--json")
    fork = json.loads(result.stdout)
    with Client(home=home) as client:
        done = client.wait(fork["id"], 100)

    assert fork["forked_from"] == {"job_id": source.id, "step": 60}
    assert (done.name, done.status, done.progress.step) == ("longer", "succeeded", 80)
    assert done.forked_from == fork["forked_from"]
    assert f"{source.id}, step 60" in " ".join(evenkeel("job", done.id).stdout.split())


def test_a_search_runs_to_its_report(evenkeel):
    search = {"kind": "halving", "ranges": {"optimizer.learning_rate": {"low": 0.01, "high": 1.0}}, "trials": 3}
    body = {"base": COMPARISON["base"], "search": search | {"rungs": 2}, "seeds": 1, "name": "rates"}

    result = evenkeel("compare", "run", "-", stdin=json.dumps(body))

    assert result.exit_code == 0
    assert "Search (halving): 3 of 3 trials. The best trial is #" in result.stdout
    assert "2 trials were left behind" in result.stdout
