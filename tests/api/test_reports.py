"""The arithmetic of reports against an independent computation, and what is left out of it."""

import csv
import io
import math
import random
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from api.reports.drawing import ticks
from api.reports.figures import figures_of, timing_of
from api.reports.loading import build
from api.reports.members import Member
from api.reports.page import page_of
from api.reports.sentences import headline, sentences
from api.reports.shapes import Report
from api.reports.statistics import estimate, ratio_estimate, student_quantile
from api.reports.svg import svg_of
from api.reports.tables import csv_of, markdown_of
from tests.api.reported import STEPS, member, plan


def report(members: list[Member], **changes: Any) -> Report:
    row = SimpleNamespace(id="cmp_1", name="a <b> & c|d", plan=plan(**changes))
    return build(row, members, {(item.variant, item.seed): f"job_{item.variant}_{item.seed}" for item in members})


@pytest.fixture
def drawn() -> list[Member]:
    """Two variants, three seeds, random accuracies with their rates and training scores."""
    draw = random.Random(7)
    found = []
    for seed in (0, 1, 2):
        for variant, level in (("with", 0.8), ("without", 0.7)):
            values = [round(level + 0.1 * draw.random(), 4) for _ in STEPS]
            rates = tuple((step, 1000.0 + 500.0 * draw.random()) for step in (7, 25, 40))
            training = tuple((step, round(draw.random(), 3)) for step in range(1, 41))
            result = {"accuracy": values[-1] - 0.01}
            found.append(member(variant, seed, *values, rates=rates, training=training, result=result))
    return found


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 29, 100, 399])
def test_the_quantile_is_students(freedom: int) -> None:
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-12)
    assert student_quantile(freedom, 0.99) == pytest.approx(stats.t.ppf(0.995, freedom), rel=1e-12)


def test_an_interval_is_that_of_scipy() -> None:
    values = [0.91, 0.935, 0.9, 0.97]

    found = estimate(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))

    assert (found.n, found.mean) == (4, pytest.approx(np.mean(values), rel=1e-14))
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-12), pytest.approx(high, rel=1e-12))


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    assert (estimate([0.5]).mean, estimate([0.5]).low, estimate([0.5]).covers_zero) == (0.5, None, None)
    assert (estimate([]).n, estimate([]).mean) == (0, None)


def test_a_ratio_is_a_geometric_mean_with_the_interval_of_its_logarithms() -> None:
    ratios = [2.0, 4.0, 3.0]

    found = ratio_estimate(ratios)
    low, high = stats.t.interval(0.95, 2, np.mean(np.log(ratios)), stats.sem(np.log(ratios)))

    assert found.mean == pytest.approx(stats.gmean(ratios), rel=1e-13)
    assert (found.low, found.high) == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))


def test_means_and_paired_differences_are_those_of_numpy(drawn: list[Member]) -> None:
    variant, baseline = figures_of(plan(), drawn).variants
    values = {
        name: np.array([[v for _, v in m.evaluations] for m in drawn if m.variant == name])
        for name in ("with", "without")
    }

    paired = values["with"][:, -1] - values["without"][:, -1]
    low, high = stats.t.interval(0.95, 2, paired.mean(), stats.sem(paired))

    assert variant.seeds == baseline.seeds == [0, 1, 2]
    assert variant.final.mean == pytest.approx(values["with"][:, -1].mean())
    assert variant.best.mean == pytest.approx(values["with"].max(axis=1).mean())
    assert variant.served.mean == pytest.approx(values["with"][:, -1].mean() - 0.01)
    assert variant.difference is not None
    assert variant.difference.final.mean == pytest.approx(paired.mean())
    assert (variant.difference.final.low, variant.difference.final.high) == (pytest.approx(low), pytest.approx(high))
    trained = np.mean([[v for step, v in m.training if step > 30] for m in drawn if m.variant == "with"], axis=1)
    assert variant.gap.mean == pytest.approx((trained - values["with"][:, -1]).mean())
    assert baseline.difference is None


def test_the_curve_is_mean_lowest_and_highest_at_each_step(drawn: list[Member]) -> None:
    curve = figures_of(plan(), drawn).curves[0]
    values = np.array([[v for _, v in m.evaluations] for m in drawn if m.variant == "with"])

    assert [point.step for point in curve.points] == list(STEPS)
    assert [point.mean for point in curve.points] == pytest.approx(values.mean(axis=0))
    assert [point.low for point in curve.points] == list(values.min(axis=0))
    assert [point.high for point in curve.points] == list(values.max(axis=0))


def test_the_target_is_the_baselines_best_of_the_same_seed_and_equal_counts_as_reached() -> None:
    members = [
        member("without", 0, 0.5, 0.7, 0.7, 0.6),
        member("with", 0, 0.6, 0.7, 0.8, 0.9),
        member("without", 1, 0.5, 0.6, 0.8, 0.9),
        member("with", 1, 0.9, 0.9, 0.9, 0.9),
        member("without", 2, 0.9, 0.5, 0.5, 0.5),
        member("with", 2, 0.8, 0.8, 0.8, 0.8),
    ]

    figures = figures_of(plan(), members)
    variant, baseline = figures.variants

    assert figures.target.by_seed == {"0": 0.7, "1": 0.9, "2": 0.9}
    assert baseline.steps_by_seed == {"0": 20, "1": 40, "2": 10}
    assert variant.steps_by_seed == {"0": 20, "1": 10, "2": None}
    assert (variant.reached, variant.targeted, variant.steps_to_target.mean) == (2, 3, 15.0)
    assert variant.difference is not None
    assert variant.difference.steps_ratio.n == 2
    assert variant.difference.steps_ratio.mean == pytest.approx(math.sqrt(1.0 * 4.0))


def test_a_target_may_be_a_number_or_nothing_and_lower_may_be_better() -> None:
    members = [member("with", 0, 0.9, 0.5, 0.4, 0.6), member("without", 0, 0.9, 0.8, 0.7, 0.5)]

    lower = figures_of(plan(metric="test/rmse", target=0.5, seeds=[0]), members)
    none = figures_of(plan(target=None, seeds=[0]), members)

    assert [variant.steps_by_seed for variant in lower.variants] == [{"0": 20}, {"0": 40}]
    assert [variant.best.mean for variant in lower.variants] == [0.4, 0.5]
    assert [variant.targeted for variant in none.variants] == [0, 0]


def test_diverged_and_missing_members_are_listed_and_left_out_of_means() -> None:
    members = [
        member("with", 0, 0.8, 0.8, 0.8, 0.8),
        member("with", 1, 0.1, outcome="diverged", step=13, error="non_finite_loss: nan"),
        member("with", 2, 0.9, 0.9, outcome="running", step=25),
        member("without", 0, 0.5, 0.5, 0.5, 0.5),
        member("without", 1, 0.6, 0.6, 0.6, 0.6),
        member("without", 2, outcome="failed", step=0, error="storage_error: full"),
    ]

    figures = figures_of(plan(), members)
    variant, baseline = figures.variants

    assert (variant.seeds, baseline.seeds) == ([0], [0, 1])
    assert (variant.final.n, variant.final.mean, variant.final.low) == (1, 0.8, None)
    assert variant.difference is not None
    assert (variant.difference.final.n, variant.difference.final.mean) == (1, pytest.approx(0.3))
    assert [(at.variant, at.seed, at.step) for at in figures.diverged] == [("with", 1, 13)]
    assert [(at.variant, at.seed, at.outcome) for at in figures.missing] == [
        ("with", 2, "running"),
        ("without", 2, "failed"),
    ]
    points = {point.step: (point.n, point.mean) for point in figures.curves[0].points}
    assert points == {10: (2, pytest.approx(0.85)), 20: (2, pytest.approx(0.85)), 30: (1, 0.8), 40: (1, 0.8)}
    assert "1 member diverged (with: 1)" in headline(figures)
    assert "2 members are missing (with: 1 running; without: 1 failed)" in headline(figures)
    assert "this may be chance" in headline(figures)


def test_a_run_that_ends_on_a_value_that_is_no_number_has_diverged() -> None:
    members = [member("with", 0, 0.9, math.nan, 0.9, math.nan), member("without", 0, 0.5, 0.5, 0.5, math.inf)]

    figures = figures_of(plan(seeds=[0]), members)

    assert [at.variant for at in figures.diverged] == ["with", "without"]
    assert [variant.final.n for variant in figures.variants] == [0, 0]
    assert figures.curves[0].points == []
    assert "ended without diverging" in headline(figures)


def test_without_a_seed_that_both_ended_with_there_is_no_comparison() -> None:
    members = [
        member("with", 0, 0.9, 0.9, 0.9, 0.9),
        member("without", 0, 0.1, outcome="diverged"),
        member("without", 1, 0.5, 0.5, 0.5, 0.5),
        member("with", 1, 0.5, outcome="diverged"),
    ]

    ended = headline(figures_of(plan(seeds=[0, 1]), members))
    running = headline(figures_of(plan(), [*members, member("with", 2, outcome="running")]))

    assert ended.startswith("with: not to be compared with without, for with no seed did both end well.")
    assert running.startswith("with: not to be compared with without yet, ")


def test_seconds_are_summed_from_rates_to_the_step_of_the_target() -> None:
    rates = ((10, 600.0), (30, 1200.0), (40, 300.0))
    members = [
        member("without", 0, 0.5, 0.6, 0.7, 0.8, rates=rates),
        member("with", 0, 0.5, 0.8, 0.8, 0.9, rates=rates),
    ]

    variant, baseline = timing_of(plan(seeds=[0]), members)

    assert baseline.seconds_to_target.mean == pytest.approx(10 * 60 / 600 + 20 * 60 / 1200 + 10 * 60 / 300)
    assert variant.seconds_to_target.mean == pytest.approx(10 * 60 / 600 + 10 * 60 / 1200)
    assert variant.training_seconds == baseline.training_seconds == baseline.seconds_to_target
    assert variant.steps_per_second.mean == pytest.approx(40 / 4.0)
    assert variant.seconds_ratio is not None
    assert variant.seconds_ratio.mean == pytest.approx(4.0 / 1.5)


def rates_plan(metric: str = "test/accuracy", chance: float | None = 0.1) -> dict[str, Any]:
    whole = plan("0.1", "1", "10", "other", metric=metric, seeds=[0, 1])
    for variant in whole["variants"][:3]:
        variant |= {"learning_rate": float(variant["name"]), "same_but_for_the_rate": "x", "group": "batch_norm=true"}
    for variant in whole["variants"]:
        variant["chance"] = chance
    return whole


def test_the_highest_stable_rate_is_the_largest_at_which_all_seeds_learned() -> None:
    good, poor = (0.5, 0.6, 0.7, 0.9), (0.1, 0.2, 0.1, 0.45)
    members = [member(name, seed, *good) for name in ("0.1", "1", "other") for seed in (0, 1)]

    poorly = figures_of(rates_plan(), [*members, member("10", 0, *good), member("10", 1, *poor)])
    diverged = figures_of(rates_plan(), [*members, member("10", 0, 0.5, outcome="diverged")])
    unknown = figures_of(rates_plan(), [*members, member("10", 0, *good)])

    assert [[rate.stable for rate in found.rates[0].rates] for found in (poorly, diverged, unknown)] == [
        [True, True, False],
        [True, True, False],
        [True, True, None],
    ]
    assert {found.rates[0].highest_stable for found in (poorly, diverged, unknown)} == {1.0}
    assert [group.group for group in poorly.rates] == ["batch_norm=true"]
    assert any("highest stable learning rate with batch_norm=true is 1 " in text for text in sentences(poorly))


def test_a_rate_of_a_regression_is_stable_when_the_error_went_down() -> None:
    members = [
        *(member(name, seed, 3.0, 2.0, 1.0, 1.0) for name in ("0.1", "1", "other") for seed in (0, 1)),
        *(member("10", seed, 3.0, 9.0, 9.0, 9.0) for seed in (0, 1)),
    ]

    found = figures_of(rates_plan("test/rmse", None), members).rates[0]

    assert [rate.stable for rate in found.rates] == [True, True, False]


def test_an_interval_that_covers_zero_is_no_difference_at_this_size() -> None:
    def told(*offsets: float) -> str:
        pairs = [(seed, 0.7 + 0.01 * seed, offset) for seed, offset in enumerate(offsets)]
        members = [member("without", seed, 0.1, 0.2, 0.3, base) for seed, base, _ in pairs]
        members += [member("with", seed, 0.1, 0.2, 0.3, base + offset) for seed, base, offset in pairs]
        return headline(figures_of(plan(), members))

    assert "no difference at this size" in told(0.01, -0.01, 0.02)
    assert "points (95 % interval" in told(0.1, 0.11, 0.12)
    assert "higher than that of without, over 3 paired seeds" in told(0.1, 0.11, 0.12)
    assert "lower than that of without" in told(-0.1, -0.11, -0.12)


def test_the_same_data_in_any_order_is_the_same_report_to_the_byte(drawn: list[Member]) -> None:
    def written(members: list[Member]) -> list[str]:
        found = report(members)
        return [
            csv_of(found),
            markdown_of(found),
            svg_of(found.figures, found.name),
            page_of(found),
            found.figures_sha256,
        ]

    shuffled = random.Random(1).sample(drawn, len(drawn))

    assert written(drawn) == written(shuffled)
    assert asdict(report(drawn).figures) == asdict(report(shuffled).figures)


def test_seconds_do_not_enter_the_digest(drawn: list[Member]) -> None:
    slower = [Member(**{**asdict(item), "rates": ((40, 1.0),)}) for item in drawn]

    assert report(slower).figures_sha256 == report(drawn).figures_sha256
    assert report(slower).timing != report(drawn).timing


def test_csv_has_every_figure_in_full(drawn: list[Member]) -> None:
    found = report(drawn)
    variant = found.figures.variants[0]

    rows = list(csv.DictReader(io.StringIO(csv_of(found))))

    assert [row["variant"] for row in rows] == ["with", "without"]
    assert float(rows[0]["final"]) == variant.final.mean
    assert float(rows[0]["difference_final_low"]) == (variant.difference.final.low if variant.difference else None)
    assert rows[1]["difference_final"] == ""


def test_names_of_users_open_no_tag_and_no_cell(drawn: list[Member]) -> None:
    found = report(drawn)

    assert "<b>" not in page_of(found)
    assert "a \\<b\\> & c\\|d" in markdown_of(found)
    assert len({line.replace("\\|", "").count("|") for line in markdown_of(found).splitlines() if line[:1] == "|"}) == 1


def test_the_page_asks_nobody_for_anything(drawn: list[Member]) -> None:
    page = page_of(report(drawn)).replace("http://www.w3.org/2000/svg", "")

    assert not any(word in page for word in ("http:", "https:", "//", "src=", "href=", "url(", "<script", "@import"))
    assert "default-src 'none'" in page


def test_the_picture_is_xml_whose_curves_lie_in_the_plot(drawn: list[Member]) -> None:
    names = {"s": "http://www.w3.org/2000/svg"}
    root = ElementTree.fromstring(svg_of(report(drawn).figures, "a <b> & c"))

    lines = root.findall("s:polyline", names)
    points = [tuple(map(float, pair.split(","))) for line in lines for pair in line.attrib["points"].split()]

    assert (len(lines), len(root.findall("s:polygon", names))) == (2, 2)
    assert all(64 <= x <= 840 and 58 <= y <= 458 for x, y in points)
    assert [x for x, _ in points[:4]] == sorted(x for x, _ in points[:4])
    assert root.findtext("s:title", namespaces=names) == "a <b> & c"


def test_a_picture_of_nothing_one_point_or_one_value_can_be_drawn() -> None:
    for members in ([], [member("with", 0, 0.5)], [member("with", 0, 0.5, 0.5), member("without", 0, 0.5, 0.5)]):
        assert ElementTree.fromstring(svg_of(figures_of(plan(), members), "x")).tag.endswith("svg")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.93, 0.98, [0.93, 0.94, 0.95, 0.96, 0.97, 0.98])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected
