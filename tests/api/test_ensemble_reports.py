"""What the seeds of a variant answer together, against numpy on the same answers."""

import csv
import io
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from api.reports.ensembles import sizes_of
from api.reports.figures import figures_of
from api.reports.members import Answers, Member
from api.reports.page import page_of
from api.reports.sentences import sentences
from api.reports.tables import csv_of, markdown_of
from core.artifacts import ArtifactStore
from tests.api.service import Service
from tests.api.test_reports import member, plan, report

ROWS, CLASSES = 400, 5


def answering(variant: str, seed: int, **more: Any) -> Member:
    """One that is right on most rows, and errs on others of its own."""
    draw = np.random.default_rng([seed, len(variant)])
    targets = np.random.default_rng(0).integers(0, CLASSES, ROWS)
    logits = draw.normal(size=(ROWS, CLASSES)) + 1.2 * np.eye(CLASSES)[targets]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return member(variant, seed, 0.5, 0.6, answers=Answers(shares.astype(np.float32), targets), **more)


@pytest.fixture
def members() -> list[Member]:
    return [answering(variant, seed) for seed in (0, 1, 2) for variant in ("with", "without")]


def accuracy(shares: np.ndarray, members: list[Member]) -> float:
    assert members[0].answers is not None
    return float((shares.argmax(1) == members[0].answers.targets).mean())


def test_sizes_and_gain_are_those_of_averaged_probabilities(members: list[Member]) -> None:
    here = [item for item in members if item.variant == "with"]
    shares = [item.answers.answers.astype(float) for item in here if item.answers is not None]
    singles = [accuracy(one, here) for one in shares]
    pairs = [accuracy((first + second) / 2, here) for first, second in combinations(shares, 2)]
    whole = accuracy(sum(shares) / 3, here)  # type: ignore[arg-type]

    found = figures_of(plan(ensemble=True), members).ensembles[0]

    assert (found.variant, found.score, found.seeds, found.rows) == ("with", "accuracy", [0, 1, 2], ROWS)
    assert found.single.mean == pytest.approx(np.mean(singles))
    assert [(size.members, size.ensembles) for size in found.sizes] == [(1, 3), (2, 3), (3, 1)]
    assert [size.mean for size in found.sizes] == pytest.approx([np.mean(singles), np.mean(pairs), whole])
    assert (found.sizes[1].lowest, found.sizes[1].highest) == (pytest.approx(min(pairs)), pytest.approx(max(pairs)))
    assert found.together == pytest.approx(whole) and whole > max(singles)
    assert found.gain.mean == pytest.approx(whole - np.mean(singles))


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(2, [1, 2]), (8, list(range(1, 9))), (9, [*range(1, 9), 9]), (40, [*range(1, 9), 16, 32, 40])],
)
def test_many_seeds_are_shown_in_sizes_that_double(count: int, sizes: list[int]) -> None:
    assert sizes_of(count) == sizes


def test_the_interval_of_the_gain_is_over_test_rows(members: list[Member]) -> None:
    here = [item.answers for item in members if item.variant == "with" and item.answers is not None]
    right = np.array([one.answers.argmax(1) == one.targets for one in here], float)
    together = np.mean([one.answers.astype(float) for one in here], axis=0).argmax(1) == here[0].targets
    rows = together - right.mean(0)

    gain = figures_of(plan(ensemble=True), members).ensembles[0].gain

    low, high = stats.t.interval(0.95, ROWS - 1, rows.mean(), stats.sem(rows))
    assert (gain.n, gain.low, gain.high) == (ROWS, pytest.approx(low), pytest.approx(high))


def test_of_a_regression_values_are_averaged_and_the_rmse_has_no_interval() -> None:
    draw = np.random.default_rng(3)
    targets = draw.normal(size=ROWS)
    members = [
        member("with", seed, 3.0, 2.0, answers=Answers((targets + draw.normal(size=ROWS))[:, None], targets))
        for seed in (0, 1)
    ]
    both = np.mean([item.answers.answers[:, 0] for item in members if item.answers is not None], axis=0)

    (found,) = figures_of(plan(ensemble=True, metric="test/rmse", seeds=[0, 1]), members).ensembles

    assert (found.score, found.gain.low) == ("rmse", None)
    assert found.together == pytest.approx(np.sqrt(np.square(both - targets).mean()))
    assert found.gain.mean is not None and found.gain.mean < 0.0  # a smaller error


def test_only_members_that_ended_well_answer_and_one_alone_is_no_ensemble() -> None:
    members = [
        answering("with", 0),
        answering("with", 1),
        answering("with", 2, outcome="diverged"),
        answering("without", 0),
        member("without", 1, 0.5, 0.5, outcome="running"),
    ]

    found = figures_of(plan(ensemble=True), members).ensembles

    assert [(item.variant, item.seeds) for item in found] == [("with", [0, 1])]
    assert figures_of(plan(), members).ensembles == []


def test_it_is_told_in_a_sentence_a_table_and_the_page(members: list[Member]) -> None:
    found = report(members, ensemble=True)

    told = [text for text in sentences(found.figures) if "seeds averaged" in text]
    assert len(told) == 2 and "over test rows" in told[0]
    rows = list(csv.DictReader(io.StringIO(csv_of(found))))
    assert [float(row["ensemble_gain"]) for row in rows] == [item.gain.mean for item in found.figures.ensembles]
    for written in (markdown_of(found), page_of(found)):
        assert "so many averaged" in written and "gain of all" in written


def test_members_keep_their_answers_and_the_report_averages_them(service: Service) -> None:
    base = {
        "dataset": {"source": "iris"},
        "network": {"family": "mlp", "hidden": [4]},
        "training": {"steps": 30, "batch_size": 16, "evaluate_every": 15},
    }
    body = {"name": "many", "base": base, "vary": {"batch_norm": [True, False]}, "seeds": 2, "ensemble": True}
    made = service.post("/v1/comparisons", body, 201)
    for _ in range(4):
        service.run()

    members = service.get(f"/v1/comparisons/{made['id']}/members")["data"]
    figures = service.get(f"/v1/comparisons/{made['id']}/report")["figures"]

    assert all(item["spec"]["evaluation"] == {"input_shifts": [], "keep_answers": True} for item in members)
    by_name = {item["variant"]: item for item in figures["ensembles"]}
    for name, found in by_name.items():
        scores = [item["result"]["accuracy"] for item in members if item["comparison"]["variant"] == name]
        assert found["single"]["mean"] == pytest.approx(np.mean(scores), abs=1e-12)  # as they are served
        assert (found["seeds"], found["sizes"][0]["ensembles"]) == ([0, 1], 2)
    assert len(by_name) == 2


def test_answers_that_are_not_what_they_were_are_an_error_and_no_wrong_figure(service: Service) -> None:
    base = {"dataset": {"source": "iris"}, "network": {"family": "mlp", "hidden": [4]}, "training": {"steps": 4}}
    body = {"base": base, "vary": {"batch_norm": [True, False]}, "seeds": 1, "ensemble": True}
    made = service.post("/v1/comparisons", body, 201)
    service.run()
    members = service.get(f"/v1/comparisons/{made['id']}/members")["data"]
    file = next(item["result"]["answers"] for item in members if item["result"])
    ArtifactStore(service.settings.resolved_artifact_url).delete(file["name"])

    service.call("GET", f"/v1/comparisons/{made['id']}/report", 507)
