"""kill -9 of everything while a comparison runs: its report is that of an undisturbed one, to the last digit."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evenkeel import Client, Comparison
from tests.acceptance.conftest import Settings
from tests.acceptance.service import Service

TARGETS = ("trainer", "forkserver", "worker", "api", "up")
BASE = {
    "dataset": {"source": "digits"},
    "network": {"family": "mlp", "hidden": [32, 32], "dropout": 0.1},
    "training": {"steps": 400, "batch_size": 32, "evaluate_every": 50, "checkpoint_every": 40},
}
LONGER = BASE | {"training": {"steps": 1600, "batch_size": 32, "evaluate_every": 100, "checkpoint_every": 100}}
"""So that a kill finds most members in the middle of their training."""
SMALL = {"base": BASE, "vary": {"batch_norm": [True, False]}, "seeds": 2}
FORTY = {
    "base": LONGER,
    "vary": {"batch_norm": [True, False], "optimizer.learning_rate": [0.05, 0.5, 5.0, 1e6]},
    "seeds": 5,
    "maximum_running": 2,
    "also": ["test/loss", "train/loss"],
}
RATES = {"optimizer.learning_rate": {"low": 0.01, "high": 100.0, "log": True}}
SEARCHES = {
    "halving": {"kind": "halving", "ranges": RATES, "trials": 9, "rungs": 2},
    "tpe": {"kind": "tpe", "ranges": RATES, "trials": 8, "first_trials": 4, "at_once": 2},
}
PATIENT = {"EVENKEEL_ATTEMPTS_WITHOUT_PROGRESS": "1000"}
"""Kills come faster here than small members make progress; that they end as they should is the point."""


@pytest.fixture
def service(stack: Settings, tmp_path: Path) -> Iterator[Service]:
    with stack() as settings:
        service = Service(tmp_path / "home", settings | PATIENT)
        service.start()
        yield service
        service.stop()


def killed_until_the_end(service: Service, client: Client, made: Comparison, seed: int, pause: float) -> Counter[str]:
    """Kills a random process again and again, at most `pause` seconds apart; how often it hit which."""
    chance, hits = random.Random(seed), Counter[str]()
    while not client.comparisons.get(made).terminal:
        threading.Event().wait(pause * chance.random())
        running = [job.id for job in client.comparisons.members(made) if job.status == "running"]
        target = chance.choice(TARGETS)
        if running and service.kill(target, chance.choice(running)):
            hits[target] += 1
    return hits


def report_of(client: Client, made: Comparison) -> dict[str, Any]:
    """All of it but the ids and what a clock measured: of the timing stays over how many members each figure is.

    The picture has no timing, and is compared as it is.
    """
    report = client.comparisons.report(made)
    assert report["complete"], report["figures"]["missing"]
    del report["comparison_id"]
    for member in report["members"]:
        del member["job_id"]
    report["timing"] = [
        {name: value["n"] if isinstance(value, dict) else value for name, value in row.items()}
        for row in report["timing"]
    ]
    return report | {"svg": client.comparisons.report_as(made, "svg")}


def test_a_worker_killed_during_a_comparison_changes_no_digit_of_its_report(service: Service) -> None:
    client = service.client()
    undisturbed = client.comparisons.submit(SMALL).wait(100)

    made = client.comparisons.submit(SMALL)
    hits = 0
    while hits < 2 and not client.comparisons.get(made).terminal:
        running = [job for job in client.comparisons.members(made) if job.progress.step > 0 and job.status == "running"]
        hits += bool(running) and service.kill("worker", running[0].id)
    ended = made.wait(100)

    assert ended.members["succeeded"] == 4
    assert hits > 0
    assert report_of(client, made) == report_of(client, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_comparison_of_40_members_survives_kills_of_everything_at_random(service: Service) -> None:
    client = service.client()
    undisturbed = client.comparisons.submit(FORTY).wait(500)
    golden = report_of(client, undisturbed)

    made = client.comparisons.submit(FORTY)
    hits = killed_until_the_end(service, client, made, seed=1, pause=3.0)
    report = report_of(client, made)

    attempts = sum(job.attempt for job in client.comparisons.members(made))
    print(f"{hits} kills, {attempts} attempts, {len(report['figures']['diverged'])} diverged")
    assert sum(hits.values()) >= 10
    assert set(hits) == set(TARGETS)
    assert made.refresh().members == undisturbed.members
    assert report == golden


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", SEARCHES)
def test_a_search_that_is_killed_at_random_tries_the_same_trials_and_gives_the_same_report(
    service: Service, kind: str
) -> None:
    client = service.client()
    body = {"base": LONGER, "search": SEARCHES[kind], "seeds": 1, "maximum_running": 2}
    golden = report_of(client, client.comparisons.submit(body).wait(200))

    made = client.comparisons.submit(body)
    hits = killed_until_the_end(service, client, made, seed=2, pause=2.0)
    report = report_of(client, made)

    print(f"{kind}: {hits} kills; {report['sentences'][0]}")
    assert sum(hits.values()) >= 3
    assert report == golden
