"""A report as one HTML page that asks nobody for anything: no script, no font, no picture from elsewhere."""

from collections.abc import Iterable
from html import escape

from api.reports.shapes import Report
from api.reports.svg import svg_of
from api.reports.tables import (
    ENSEMBLE_HEADINGS,
    HEADINGS,
    OBSERVED_HEADINGS,
    beside_cells,
    beside_headings,
    cells,
    ensemble_cells,
    notes,
    observed_cells,
    rate_cells,
)

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; }
.sentence { font-size: 1.1rem; border-left: 4px solid #0072b2; padding-left: 0.8rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }
li { margin: 0.2rem 0; }
"""


def page_of(report: Report) -> str:
    name = escape(report.name)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f"<title>{name}</title><style>{STYLE}</style></head><body>",
        f"<h1>{name}</h1>",
        f'<p class="sentence">{escape(report.sentence)}</p>',
        "" if report.complete else "<p>Not all members have ended: these figures will change.</p>",
        svg_of(report.figures, report.name),
        _table(HEADINGS, cells(report)),
    ]
    if beside_headings(report):
        parts.append(_table(beside_headings(report), beside_cells(report)))
    if report.figures.ensembles:
        parts.append(_table(ENSEMBLE_HEADINGS, ensemble_cells(report)))
    if report.figures.observed:
        parts.append(_table(OBSERVED_HEADINGS, observed_cells(report)))
    if report.figures.rates:
        parts.append(_table(("variants", "learning rate", "how it went"), rate_cells(report)))
    parts += [_list(report.sentences), _list(notes(report))]
    parts.append(f"<p><small>Figures {report.figures_sha256}</small></p></body></html>")
    return "\n".join(part for part in parts if part) + "\n"


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
