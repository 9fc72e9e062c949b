"""What every picture of a report is drawn with: plain SVG, written by hand, the same bytes for the same figures."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

WIDTH = 860
LEFT, RIGHT = 64, 20
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5b5b5b", "#882255")
"""Told apart by people who see colours otherwise (Okabe & Ito), and then by dashes."""
DASHES = ("", "7 4", "2 3", "9 3 2 3")
LABEL_CHARACTERS = 100


@dataclass(frozen=True)
class Frame:
    """The rectangle of a plot in pixels, and what it shows."""

    first: float
    last: float
    low: float
    high: float
    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def x(self, step: float) -> float:
        return self.left + (step - self.first) / (self.last - self.first) * self.width

    def y(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return self.top + (self.high - inside) / (self.high - self.low) * self.height

    def at(self, step: float, value: float) -> str:
        return f"{self.x(step):.2f},{self.y(value):.2f}"


def bounds(low: float, high: float) -> tuple[float, float]:
    """What an axis shows of values from `low` to `high`: a little more, and never nothing."""
    margin = 0.04 * (high - low) or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers from low to high: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    width = next(power * factor for factor in (1.0, 2.0, 5.0, 10.0) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / width - 1e-9), math.floor(high / width + 1e-9)
    return [round(number * width, 12) for number in range(first, last + 1)]


def axes(frame: Frame, share: bool, rows: int = 6, columns: int = 8) -> Iterator[str]:
    """`share`: values are written in percent. `rows`, `columns`: about so many ticks."""
    for value in ticks(frame.low, frame.high, rows):
        y = frame.y(value)
        yield f'<line x1="{frame.left}" y1="{y:.2f}" x2="{frame.right}" y2="{y:.2f}" stroke="#e4e4e4"/>'
        yield text(frame.left - 8, y + 4, f"{100 * value:.4g} %" if share else f"{value:.4g}", "end")
    for step in ticks(frame.first, frame.last, columns):
        x = frame.x(step)
        yield f'<line x1="{x:.2f}" y1="{frame.bottom}" x2="{x:.2f}" y2="{frame.bottom + 5}" stroke="#888888"/>'
        yield text(x, frame.bottom + 18, f"{step:,.0f}" if step == int(step) else f"{step:g}", "middle")
    yield f'<path d="M{frame.left} {frame.top}V{frame.bottom}H{frame.right}" fill="none" stroke="#888888"/>'
    yield text((frame.left + frame.right) / 2, frame.bottom + 36, "step", "middle")


def line(points: list[str], stroke: str, width: float, dash: str = "", opacity: float = 1.0) -> str:
    """Through points as `Frame.at` gives them; a single one is a dot."""
    if len(points) == 1:
        x, y = points[0].split(",")
        return f'<circle cx="{x}" cy="{y}" r="3.5" fill="{stroke}" fill-opacity="{opacity:g}"/>'
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    faint = f' stroke-opacity="{opacity:g}"' if opacity < 1.0 else ""
    drawn = " ".join(points)
    return f'<polyline points="{drawn}" fill="none" stroke="{stroke}" stroke-width="{width:g}"{dashed}{faint}/>'


def text(x: float, y: float, content: str, anchor: str, colour: str = "#333333") -> str:
    return f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}" fill="{colour}">{escape(content)}</text>'


def style(place: int) -> tuple[str, str]:
    """(colour, dashes) of the variant at this place."""
    return COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]


def cut(content: str, most: int = LABEL_CHARACTERS) -> str:
    return content if len(content) <= most else f"{content[:most]}…"
