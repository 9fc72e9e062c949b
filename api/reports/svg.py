"""The picture of a report: curves with bands, and the observed series below them."""

from collections.abc import Iterator, Sequence
from html import escape

from api.reports.drawing import LEFT, RIGHT, WIDTH, Frame, axes, bounds, cut, line, style, text
from api.reports.numbers import is_share
from api.reports.panels import height_of, panels_of
from api.reports.shapes import Curve, Figures

PLOT_HEIGHT = 400
TOP, BOTTOM = 58, 48
ROW_HEIGHT = 20
SHARE_CUT = 0.02
"""This share of the worst points is drawn on the edge: the first steps would flatten all others."""


def svg_of(figures: Figures, title: str) -> str:
    """Means over seeds, each with a band from the lowest to the highest seed; then panels of what was observed."""
    drawn = [(place, curve) for place, curve in enumerate(figures.curves) if curve.points]
    below = TOP + PLOT_HEIGHT + BOTTOM + ROW_HEIGHT * len(figures.curves) + 12
    height = f"{below + height_of(figures):g}"
    frame = _frame([curve for _, curve in drawn], figures.higher_is_better)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="600" fill="#222222">{escape(cut(title))}</text>',
        *axes(frame, is_share(figures.metric)),
        text(LEFT, 44, f"{figures.metric}, mean over seeds; band: lowest to highest seed", "start", "#555555"),
    ]
    parts += [_band(frame, curve, style(place)[0]) for place, curve in drawn]
    for place, curve in drawn:
        colour, dash = style(place)
        parts.append(line([frame.at(point.step, point.mean) for point in curve.points], colour, 2, dash))
    if not drawn:
        middle = (frame.left + frame.right) / 2
        parts.append(text(middle, TOP + PLOT_HEIGHT / 2, "no evaluation is recorded yet", "middle", "#666666"))
    parts += _legend(figures)
    return "\n".join([*parts, *panels_of(figures, below), "</svg>"]) + "\n"


def _frame(curves: Sequence[Curve], higher_is_better: bool) -> Frame:
    place = (LEFT, TOP, WIDTH - LEFT - RIGHT, PLOT_HEIGHT)
    points = [point for curve in curves for point in curve.points]
    if not points:
        return Frame(0.0, 1.0, 0.0, 1.0, *place)
    lows, highs = sorted(point.low for point in points), sorted(point.high for point in points)
    spared = int(SHARE_CUT * len(points))
    low = lows[spared] if higher_is_better else lows[0]
    high = highs[-1] if higher_is_better else highs[-1 - spared]
    return Frame(0.0, float(max(point.step for point in points)), *bounds(low, high), *place)


def _band(frame: Frame, curve: Curve, colour: str) -> str:
    upper = [frame.at(point.step, point.high) for point in curve.points]
    lower = [frame.at(point.step, point.low) for point in reversed(curve.points)]
    return f'<polygon points="{" ".join(upper + lower)}" fill="{colour}" fill-opacity="0.16"/>'


def _legend(figures: Figures) -> Iterator[str]:
    top = TOP + PLOT_HEIGHT + BOTTOM + 8
    for place, curve in enumerate(figures.curves):
        colour, dash = style(place)
        y = top + ROW_HEIGHT * place
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        stroke = f'stroke="{colour}" stroke-width="3"{dashed}'
        yield f'<line x1="{LEFT}" y1="{y - 4}" x2="{LEFT + 30}" y2="{y - 4}" {stroke}/>'
        yield text(LEFT + 38, y, _label(curve, figures), "start")


def _label(curve: Curve, figures: Figures) -> str:
    diverged = [member.step for member in figures.diverged if member.variant == curve.variant]
    missing = sum(member.variant == curve.variant for member in figures.missing)
    parts = [curve.variant + (" (baseline)" if curve.variant == figures.baseline else "")]
    if diverged:
        parts.append(f"{len(diverged)} diverged, the first at step {min(diverged):,}")
    if missing:
        parts.append(f"{missing} missing")
    return cut("; ".join(parts))
