"""A report as CSV and as Markdown. The same report gives the same bytes."""

import csv
import io
import re
from collections.abc import Iterator

from api.reports.numbers import plain, shown, signed, steps, with_interval
from api.reports.shapes import Report, VariantFigures, VariantTiming
from api.reports.statistics import Estimate

HEADINGS = (
    "variant",
    "seeds",
    "best",
    "final",
    "served",
    "train–test gap",
    "final against baseline",
    "steps to target",
    "times fewer steps",
    "seconds to target",
    "steps a second",
)
ENSEMBLE_HEADINGS = ("ensemble of", "members", "one alone", "so many averaged", "gain of all")
OBSERVED_HEADINGS = ("observed series", "variant", "mean", "path", "range", "path against baseline")
"""Of the table for people; brackets hold 95 % intervals."""
ESTIMATES = ("best", "final", "served", "gap", "steps_to_target")
EDGE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
"""An underscore that may begin or end emphasis: one within a word does neither."""
TIMINGS = ("seconds_to_target", "training_seconds", "steps_per_second")
COURSES = ("mean", "path", "range")
DIFFERENCES = ("final", "best", "served", "steps_ratio")


def csv_of(report: Report) -> str:
    """A row for each variant, every figure in full; `_low` and `_high` are the ends of 95 % intervals."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [*ESTIMATES, *(f"difference_{name}" for name in DIFFERENCES), *TIMINGS, *_series(report)]
    names += [f"{series}_{part}" for series in _observed(report) for part in COURSES]
    names += ["ensemble_single", "ensemble_gain"] if report.figures.ensembles else []
    columns = [f"{name}{end}" for name in names for end in ("_n", "", "_low", "_high")]
    writer.writerow(["variant", "baseline", "reached", "targeted", "diverged", "missing", *columns])
    for variant, timing in zip(report.figures.variants, report.timing, strict=True):
        estimates = [getattr(variant, name) for name in ESTIMATES]
        estimates += [getattr(variant.difference, name, None) for name in DIFFERENCES]
        estimates += [getattr(timing, name) for name in TIMINGS]
        estimates += [variant.also[name].last for name in _series(report)]
        estimates += [
            getattr(item, part) for item in report.figures.observed if item.variant == variant.name for part in COURSES
        ]
        if report.figures.ensembles:
            together = [item for item in report.figures.ensembles if item.variant == variant.name]
            estimates += [together[0].single, together[0].gain] if together else [None, None]
        row = [variant.name, variant.name == report.figures.baseline, variant.reached, variant.targeted]
        row += [sum(member.variant == variant.name for member in report.figures.diverged)]
        row += [sum(member.variant == variant.name for member in report.figures.missing)]
        writer.writerow([*row, *(cell for estimate in estimates for cell in _cells(estimate))])
    return out.getvalue()


def markdown_of(report: Report) -> str:
    return "\n".join(_markdown_lines(report)) + "\n"


def cells(report: Report) -> Iterator[tuple[str, ...]]:
    """The table for people, a row for each variant under `HEADINGS`."""
    for variant, timing in zip(report.figures.variants, report.timing, strict=True):
        yield _row(variant, timing, report.figures.metric, variant.name == report.figures.baseline)


def notes(report: Report) -> Iterator[str]:
    """How the table is to be read, and what it is without."""
    figures = report.figures
    way = "higher" if figures.higher_is_better else "lower"
    yield (
        f"Metric: {figures.metric}, {way} is better; brackets are 95 % intervals of means over seeds (Student's t), "
        "differences are taken seed by seed."
    )
    if figures.target.kind == "baseline_best":
        mean = shown(figures.target.value, figures.metric)
        yield f"Target: seed by seed the best of {figures.baseline}, {mean} in the mean."
    elif figures.target.kind == "value":
        yield f"Target: {shown(figures.target.value, figures.metric)}."
    if figures.ensembles:
        yield (
            "An ensemble answers with the mean of its members' probabilities, or values, on the test split, each under "
            "the statistics of inference. Of fewer than all seeds the mean over all choices is shown, or over 20 of "
            "them; the interval of the gain is over test rows, for these very members."
        )
    if figures.observed:
        yield (
            "Of an observed series, path is the sum of the absolute changes from each observation to the next, range "
            "the highest value minus the lowest, mean that over all observations, each taken seed by seed. A path "
            "depends on how often is observed: it is to be compared where observe.every is the same."
        )
    yield "Seconds are of training alone, without evaluations, checkpoints and waiting."
    for what, absent in (("Diverged", figures.diverged), ("Missing", figures.missing)):
        for member in absent:
            reason = f": {member.error}" if member.error else ""
            state = "" if what == "Diverged" else f", {member.outcome}"
            yield f"{what}: {member.variant}, seed {member.seed}{state}, at step {member.step}{reason}"


def beside_headings(report: Report) -> tuple[str, ...]:
    """Of the table of other series; empty when the comparison asked for none."""
    names = _series(report)
    return ("variant", *names) if names else ()


def beside_cells(report: Report) -> Iterator[tuple[str, ...]]:
    """The last values of other series, a row for each variant."""
    for variant in report.figures.variants:
        yield variant.name, *(with_interval(variant.also[name].last, _kind(name)) for name in _series(report))


def _series(report: Report) -> list[str]:
    return list(report.figures.variants[0].also)


def _observed(report: Report) -> list[str]:
    return list(dict.fromkeys(item.series for item in report.figures.observed))


def _kind(series: str) -> str:
    """What its numbers are written as: an accuracy of shifted inputs is an accuracy too."""
    return "accuracy" if "accuracy" in series else series


def ensemble_cells(report: Report) -> Iterator[tuple[str, ...]]:
    """A row for each variant whose seeds answer together, under `ENSEMBLE_HEADINGS`."""
    for item in report.figures.ensembles:
        by_size = ", ".join(f"{size.members}: {shown(size.mean, item.score)}" for size in item.sizes)
        gain = signed(item.gain, item.score)
        yield item.variant, str(len(item.seeds)), with_interval(item.single, item.score), by_size, gain


def observed_cells(report: Report) -> Iterator[tuple[str, ...]]:
    """A row for each observed series and variant, under `OBSERVED_HEADINGS`."""
    for item in report.figures.observed:
        ratio = "–" if item.path_ratio is None else f"× {plain(item.path_ratio)}"
        yield item.series, item.variant, plain(item.mean), plain(item.path), plain(item.range), ratio


def rate_cells(report: Report) -> Iterator[tuple[str, str, str]]:
    """(group, rate, how it went), where the learning rate varies."""
    words = {True: "stable", False: "not stable", None: "not known yet"}
    for group in report.figures.rates:
        for rate in group.rates:
            highest = ", the highest that was" if rate.learning_rate == group.highest_stable else ""
            yield group.group, f"{rate.learning_rate:g}", words[rate.stable] + highest


def _row(variant: VariantFigures, timing: VariantTiming, metric: str, is_baseline: bool) -> tuple[str, ...]:
    difference = variant.difference
    reached = f" ({variant.reached} of {variant.targeted})" if variant.reached < variant.targeted else ""
    return (
        f"{variant.name} (baseline)" if is_baseline else variant.name,
        str(len(variant.seeds)),
        with_interval(variant.best, metric),
        with_interval(variant.final, metric),
        with_interval(variant.served, metric),
        signed(variant.gap, metric),
        signed(difference.final, metric) if difference else "–",
        steps(variant.steps_to_target) + reached,
        plain(difference.steps_ratio) if difference else "–",
        plain(timing.seconds_to_target),
        plain(timing.steps_per_second),
    )


def _markdown_lines(report: Report) -> Iterator[str]:
    yield f"# {_escaped(report.name)}"
    yield ""
    yield _escaped(report.sentence)
    yield ""
    yield from _table(HEADINGS, cells(report))
    if beside_headings(report):
        yield ""
        yield from _table(beside_headings(report), beside_cells(report))
    if report.figures.ensembles:
        yield ""
        yield from _table(ENSEMBLE_HEADINGS, ensemble_cells(report))
    if report.figures.observed:
        yield ""
        yield from _table(OBSERVED_HEADINGS, observed_cells(report))
    if report.figures.rates:
        yield ""
        yield from _table(("variants", "learning rate", "how it went"), rate_cells(report))
    yield ""
    for text in (*report.sentences, *notes(report)):
        yield f"- {_escaped(text)}"


def _table(headings: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(_escaped(cell) for cell in row)} |"


def _escaped(text: str) -> str:
    """Names are the user's: none may open a cell, a tag, a link or emphasis."""
    for mark in "\\|<>*`":
        text = text.replace(mark, f"\\{mark}")
    return EDGE.sub(r"\\_", text).replace("](", "]\\(")


def _cells(estimate: Estimate | None) -> tuple[object, ...]:
    if estimate is None:
        return ("", "", "", "")
    return tuple("" if value is None else value for value in (estimate.n, estimate.mean, estimate.low, estimate.high))
