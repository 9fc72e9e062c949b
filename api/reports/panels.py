"""Observed series as small plots, two in a row: percentiles of a layer's input a panel for each variant, as in the
paper's Figure 1 b and c, the baseline first; of all else a panel for each series with a line for each variant."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from api.reports.drawing import LEFT, RIGHT, WIDTH, Frame, axes, bounds, cut, line, style, text
from api.reports.numbers import is_share
from api.reports.observed import MEDIAN, Observed, percentile_of
from api.reports.shapes import Figures

COLUMNS = 2
WIDE = (WIDTH - COLUMNS * (LEFT + RIGHT)) / COLUMNS
HEIGHT, ABOVE, BELOW = 190, 58, 48
PANEL = ABOVE + HEIGHT + BELOW
MOST_PANELS = 24
SHARE_CUT = 0.02
"""This share of the highest points of what is no percentile is drawn on the edge: the first steps would flatten all
others."""
TITLE_CHARACTERS = 52
FAINT = 0.3
"""Of the lines of other seeds than the first."""


@dataclass(frozen=True)
class Panel:
    title: str
    told: str
    parts: tuple[Observed, ...]
    low: float
    high: float


def height_of(figures: Figures) -> float:
    """Of all panels together."""
    shown = _panels(figures)
    rows = -(-min(len(shown), MOST_PANELS) // COLUMNS)
    return rows * PANEL + (24 if len(shown) > MOST_PANELS else 0)


def panels_of(figures: Figures, top: float) -> Iterator[str]:
    """The panels from `top` down."""
    shown = _panels(figures)
    places = {curve.variant: place for place, curve in enumerate(figures.curves)}
    for number, panel in enumerate(shown[:MOST_PANELS]):
        row, column = divmod(number, COLUMNS)
        last = max((step for part in panel.parts for trace in part.traces for step in trace.steps), default=1)
        left = LEFT + column * (LEFT + WIDE + RIGHT)
        frame = Frame(0.0, float(last), panel.low, panel.high, left, top + row * PANEL + ABOVE, WIDE, HEIGHT)
        yield text(left, frame.top - 26, cut(panel.title, TITLE_CHARACTERS), "start")
        yield text(left, frame.top - 10, panel.told, "start", "#666666")
        yield from axes(frame, is_share(panel.parts[0].series), 5, 4)
        for part in panel.parts:
            yield from _lines(frame, part, *style(places[part.variant]))
    if len(shown) > MOST_PANELS:
        told = f"{len(shown) - MOST_PANELS} more panels are left out; their figures stand in the table and in the JSON"
        yield text(LEFT, top + height_of(figures) - 8, told, "start", "#666666")


def _panels(figures: Figures) -> list[Panel]:
    drawn = [item for item in figures.observed if item.traces]
    ordered = sorted(drawn, key=lambda item: item.variant != figures.baseline)
    layers = list(dict.fromkeys(found[0] for item in drawn if (found := percentile_of(item.series))))
    others = list(dict.fromkeys(item.series for item in drawn if percentile_of(item.series) is None))
    of_layers = [panel for layer in layers for panel in _percentiles(layer, ordered)]
    return [*of_layers, *(_of_variants(series, drawn) for series in others)]


def _percentiles(layer: str, ordered: Sequence[Observed]) -> Iterator[Panel]:
    """One for each variant, all on the same axis."""
    here = [item for item in ordered if (percentile_of(item.series) or ("",))[0] == layer]
    values = [value for item in here for trace in item.traces for value in trace.values]
    low, high = bounds(min(values), max(values))
    for variant in dict.fromkeys(item.variant for item in here):
        parts = tuple(item for item in here if item.variant == variant)
        numbers = ", ".join(part.series.rpartition("/p")[2] for part in parts)
        yield Panel(f"{variant}: input to {layer}", f"percentiles {numbers}{_of_seeds(parts)}", parts, low, high)


def _of_variants(series: str, drawn: Sequence[Observed]) -> Panel:
    parts = tuple(item for item in drawn if item.series == series)
    values = sorted(value for item in parts for trace in item.traces for value in trace.values)
    low, high = bounds(values[0], values[-1 - int(SHARE_CUT * len(values))])
    return Panel(series, f"a line for each variant{_of_seeds(parts)}", parts, low, high)


def _of_seeds(parts: Sequence[Observed]) -> str:
    """Which line is whose, where there are several seeds."""
    seeds = {trace.seed for part in parts for trace in part.traces}
    first = parts[0].traces[0].seed
    return f"; seed {first}, others faint" if len(seeds) > 1 else ""


def _lines(frame: Frame, part: Observed, colour: str, dash: str) -> Iterator[str]:
    found = percentile_of(part.series)
    width = 2.0 if found is None or found[1] == MEDIAN else 1.3
    for trace in reversed(part.traces):
        first = trace is part.traces[0]
        points = [frame.at(step, value) for step, value in zip(trace.steps, trace.values, strict=True)]
        yield line(points, colour, width if first else 0.8, dash, 1.0 if first else FAINT)
