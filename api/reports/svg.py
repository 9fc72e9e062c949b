"""Curves with bands as a picture: plain SVG, written by hand, the same bytes for the same figures."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from api.reports.numbers import is_share
from api.reports.shapes import Curve, CurvePoint, Figures

WIDTH, PLOT_HEIGHT = 860, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 58, 48
ROW_HEIGHT = 20
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5b5b5b", "#882255")
"""Told apart by people who see colours otherwise (Okabe & Ito), and then by dashes."""
DASHES = ("", "7 4", "2 3", "9 3 2 3")
SHARE_CUT = 0.02
"""This share of the worst points is drawn on the edge: the first steps would flatten all others."""
LABEL_CHARACTERS = 100


@dataclass(frozen=True)
class Frame:
    """The rectangle of the plot, and what it shows."""

    first: float
    last: float
    low: float
    high: float

    def x(self, step: float) -> float:
        return LEFT + (step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return TOP + (self.high - inside) / (self.high - self.low) * PLOT_HEIGHT


def svg_of(figures: Figures, title: str) -> str:
    """Means over seeds, each with a band from the lowest to the highest seed."""
    drawn = [(place, curve) for place, curve in enumerate(figures.curves) if curve.points]
    height = TOP + PLOT_HEIGHT + BOTTOM + ROW_HEIGHT * len(figures.curves) + 12
    frame = _frame([curve for _, curve in drawn], figures.higher_is_better)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="600" fill="#222222">{escape(_cut(title))}</text>',
        *_axes(frame, figures.metric),
    ]
    parts += [_band(frame, curve, _style(place)[0]) for place, curve in drawn]
    parts += [_line(frame, curve, *_style(place)) for place, curve in drawn]
    if not drawn:
        middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
        parts.append(_text(middle, TOP + PLOT_HEIGHT / 2, "no evaluation is recorded yet", "middle", "#666666"))
    parts += _legend(figures)
    return "\n".join([*parts, "</svg>"]) + "\n"


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers from low to high: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    width = next(power * factor for factor in (1.0, 2.0, 5.0, 10.0) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / width - 1e-9), math.floor(high / width + 1e-9)
    return [round(number * width, 12) for number in range(first, last + 1)]


def _frame(curves: Sequence[Curve], higher_is_better: bool) -> Frame:
    points = [point for curve in curves for point in curve.points]
    if not points:
        return Frame(0.0, 1.0, 0.0, 1.0)
    first, last = 0.0, float(max(point.step for point in points))
    lows, highs = sorted(point.low for point in points), sorted(point.high for point in points)
    cut = int(SHARE_CUT * len(points))
    low = lows[cut] if higher_is_better else lows[0]
    high = highs[-1] if higher_is_better else highs[-1 - cut]
    margin = 0.04 * (high - low) or abs(high) * 0.05 or 1.0
    return Frame(first, last, low - margin, high + margin)


def _axes(frame: Frame, metric: str) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, TOP + PLOT_HEIGHT
    for value in ticks(frame.low, frame.high):
        y = frame.y(value)
        yield f'<line x1="{LEFT}" y1="{y:.2f}" x2="{right}" y2="{y:.2f}" stroke="#e4e4e4"/>'
        yield _text(LEFT - 8, y + 4, f"{100 * value:.4g} %" if is_share(metric) else f"{value:.4g}", "end")
    for step in ticks(frame.first, frame.last, 8):
        x = frame.x(step)
        yield f'<line x1="{x:.2f}" y1="{bottom}" x2="{x:.2f}" y2="{bottom + 5}" stroke="#888888"/>'
        yield _text(x, bottom + 18, f"{step:,.0f}" if step == int(step) else f"{step:g}", "middle")
    yield f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#888888"/>'
    yield _text((LEFT + right) / 2, bottom + 36, "step", "middle")
    yield _text(LEFT, 44, f"{metric}, mean over seeds; band: lowest to highest seed", "start", "#555555")


def _band(frame: Frame, curve: Curve, colour: str) -> str:
    upper = [_at(frame, point, point.high) for point in curve.points]
    lower = [_at(frame, point, point.low) for point in reversed(curve.points)]
    return f'<polygon points="{" ".join(upper + lower)}" fill="{colour}" fill-opacity="0.16"/>'


def _line(frame: Frame, curve: Curve, colour: str, dash: str) -> str:
    points = " ".join(_at(frame, point, point.mean) for point in curve.points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    if len(curve.points) == 1:
        x, y = points.split(",")
        return f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>'
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>'


def _at(frame: Frame, point: CurvePoint, value: float) -> str:
    return f"{frame.x(point.step):.2f},{frame.y(value):.2f}"


def _legend(figures: Figures) -> Iterator[str]:
    top = TOP + PLOT_HEIGHT + BOTTOM + 8
    for place, curve in enumerate(figures.curves):
        colour, dash = _style(place)
        y = top + ROW_HEIGHT * place
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        stroke = f'stroke="{colour}" stroke-width="3"{dashed}'
        yield f'<line x1="{LEFT}" y1="{y - 4}" x2="{LEFT + 30}" y2="{y - 4}" {stroke}/>'
        yield _text(LEFT + 38, y, _label(curve, figures), "start")


def _label(curve: Curve, figures: Figures) -> str:
    diverged = [member.step for member in figures.diverged if member.variant == curve.variant]
    missing = sum(member.variant == curve.variant for member in figures.missing)
    parts = [curve.variant + (" (baseline)" if curve.variant == figures.baseline else "")]
    if diverged:
        parts.append(f"{len(diverged)} diverged, the first at step {min(diverged):,}")
    if missing:
        parts.append(f"{missing} missing")
    return _cut("; ".join(parts))


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333333") -> str:
    return f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _style(place: int) -> tuple[str, str]:
    return COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]


def _cut(text: str) -> str:
    return text if len(text) <= LABEL_CHARACTERS else f"{text[:LABEL_CHARACTERS]}…"
