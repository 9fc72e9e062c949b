"""What a report says of observed series: how far they moved, against an independent computation; and its panels."""

import csv
import io
import random
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from api.reports.figures import figures_of
from api.reports.members import Member
from api.reports.observed import TRACE_POINTS, percentile_of
from api.reports.page import page_of
from api.reports.panels import MOST_PANELS
from api.reports.sentences import sentences
from api.reports.svg import svg_of
from api.reports.tables import csv_of, markdown_of
from tests.api.test_reports import member, plan, report

PERCENTILES = tuple(f"observe/hidden3.activation/p{number}" for number in (15, 50, 85))
SHIFT = "observe/hidden2.activation/mean_shift"
NAMES = {"s": "http://www.w3.org/2000/svg"}


def observed(variant: str, seed: int, count: int = 30, **more: Any) -> Member:
    draw = random.Random(f"{variant} {seed}")
    series = {
        name: tuple((10 * step + 1, draw.gauss(place, 0.1 if variant == "with" else 1.0)) for step in range(count))
        for place, name in enumerate((*PERCENTILES, SHIFT))
    }
    return member(variant, seed, 0.5, 0.6, 0.7, 0.8, **({"observed": series} | more))


@pytest.fixture
def drawn() -> list[Member]:
    return [observed(variant, seed) for seed in (0, 1, 2) for variant in ("with", "without")]


def of(members: list[Member], variant: str, series: str, also: tuple[str, ...] = (*PERCENTILES, SHIFT)) -> Any:
    found = figures_of(plan(also=also), members).observed
    return next(item for item in found if (item.variant, item.series) == (variant, series))


def test_path_range_and_mean_are_those_of_numpy_seed_by_seed(drawn: list[Member]) -> None:
    values = {
        name: np.array(
            [[value for _, value in item.observed[PERCENTILES[1]]] for item in drawn if item.variant == name]
        )
        for name in ("with", "without")
    }
    paths = {name: np.abs(np.diff(found, axis=1)).sum(axis=1) for name, found in values.items()}

    here, base = of(drawn, "with", PERCENTILES[1]), of(drawn, "without", PERCENTILES[1])

    low, high = stats.t.interval(0.95, 2, paths["with"].mean(), stats.sem(paths["with"]))
    assert (here.path.n, here.path.mean) == (3, pytest.approx(paths["with"].mean(), rel=1e-12))
    assert (here.path.low, here.path.high) == (pytest.approx(low), pytest.approx(high))
    assert base.path.mean == pytest.approx(paths["without"].mean(), rel=1e-12)
    assert here.range.mean == pytest.approx(np.ptp(values["with"], axis=1).mean(), rel=1e-12)
    assert here.mean.mean == pytest.approx(values["with"].mean(), rel=1e-12)
    assert here.path_ratio.mean == pytest.approx(stats.gmean(paths["with"] / paths["without"]), rel=1e-12)
    assert base.path_ratio is None


def test_what_did_not_move_has_no_path_and_no_ratio() -> None:
    still = {PERCENTILES[1]: ((1, 0.5), (20, 0.5), (40, 0.5))}
    members = [observed("with", 0, observed=still), observed("without", 0)]

    found = of(members, "with", PERCENTILES[1])

    assert (found.path.mean, found.range.mean, found.mean.mean) == (0.0, 0.0, 0.5)
    assert found.path_ratio.n == 0


def test_running_members_are_drawn_and_not_counted_and_diverged_ones_neither() -> None:
    members = [
        observed("with", 0),
        observed("with", 1, outcome="running"),
        observed("with", 2, outcome="diverged"),
        observed("without", 0),
    ]

    found = of(members, "with", PERCENTILES[1])

    assert [trace.seed for trace in found.traces] == [0, 1]
    assert (found.path.n, found.mean.n, found.range.n) == (1, 1, 1)


def test_values_that_are_no_numbers_are_left_out_of_lines_and_paths() -> None:
    broken = {PERCENTILES[1]: ((1, 1.0), (20, float("nan")), (30, float("inf")), (40, 3.0))}

    found = of([observed("with", 0, observed=broken), observed("without", 0)], "with", PERCENTILES[1])

    assert (found.traces[0].steps, found.traces[0].values) == ([1, 40], [1.0, 3.0])
    assert found.path.mean == 2.0


def test_a_long_line_is_thinned_out_and_its_path_is_of_all_points() -> None:
    members = [observed("with", 0, 5000), observed("without", 0)]
    whole = [value for _, value in members[0].observed[PERCENTILES[1]]]

    found = of(members, "with", PERCENTILES[1])

    assert len(found.traces[0].steps) <= TRACE_POINTS
    assert (max(found.traces[0].values), min(found.traces[0].values)) == (max(whole), min(whole))
    assert found.path.mean == pytest.approx(sum(abs(after - before) for before, after in pairwise(whole)))


def test_the_median_s_drift_is_told_for_each_variant_and_against_the_baseline(drawn: list[Member]) -> None:
    figures = figures_of(plan(also=PERCENTILES), drawn)

    told = [text for text in sentences(figures) if "median input to hidden3.activation" in text]

    assert len(told) == 2
    assert "the way of without" in told[0] and "95 % interval" in told[0]
    assert told[1].startswith("without: ") and "the way of" not in told[1]


def test_percentiles_are_a_panel_for_each_variant_the_baseline_first_on_one_axis(drawn: list[Member]) -> None:
    figures = figures_of(plan(also=(*PERCENTILES, SHIFT)), drawn)
    root = ElementTree.fromstring(svg_of(figures, "x"))

    texts = [str(item.text) for item in root.findall("s:text", NAMES)]
    titles = [text for text in texts if "input to hidden3.activation" in text or text == SHIFT]
    lines = root.findall("s:polyline", NAMES)
    points = [tuple(map(float, pair.split(","))) for line in lines for pair in line.attrib["points"].split()]

    assert titles == ["without: input to hidden3.activation", "with: input to hidden3.activation", SHIFT]
    assert len(lines) == 2 + 2 * 3 * 3 + 2 * 3  # curves; percentiles of three seeds; a line a seed and variant
    assert all(x <= 860 and y <= float(root.attrib["height"]) for x, y in points)
    assert sum(text.startswith("percentiles 15, 50, 85; seed 0") for text in texts) == 2


def test_csv_has_the_courses_of_each_series_in_full(drawn: list[Member]) -> None:
    found = report(drawn, also=(*PERCENTILES, SHIFT))
    rows = list(csv.DictReader(io.StringIO(csv_of(found))))

    for row in rows:
        item = next(
            one for one in found.figures.observed if (one.variant, one.series) == (row["variant"], PERCENTILES[1])
        )
        assert float(row[f"{PERCENTILES[1]}_path"]) == item.path.mean
        assert float(row[f"{PERCENTILES[1]}_range_low"]) == item.range.low


def test_many_panels_are_cut_and_said_to_be() -> None:
    names = [f"v{number}" for number in range(MOST_PANELS + 3)]
    members = [observed(name, 0) for name in names]
    whole = plan(*names, also=PERCENTILES, seeds=[0])

    root = ElementTree.fromstring(svg_of(figures_of(whole, members), "x"))

    texts = [str(item.text) for item in root.findall("s:text", NAMES)]
    assert sum("input to hidden3.activation" in text for text in texts) == MOST_PANELS
    assert any(text.startswith("3 more panels are left out") for text in texts)


def test_the_figures_stand_in_table_and_page(drawn: list[Member]) -> None:
    found = report(drawn, also=(*PERCENTILES, SHIFT))

    for written in (markdown_of(found), page_of(found)):
        assert "path against baseline" in written
        assert "the sum of the absolute changes" in written
    assert len([line for line in markdown_of(found).splitlines() if line.startswith(f"| {SHIFT} |")]) == 2


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ("observe/stage1.activation/p2.5", ("stage1.activation", 2.5)),
        ("observe/hidden1.linear/gradient_norm", None),
        ("bn/p50", None),
    ],
)
def test_percentiles_are_known_by_their_names(series: str, expected: Any) -> None:
    assert percentile_of(series) == expected
