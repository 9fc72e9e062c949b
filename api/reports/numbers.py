"""Numbers as people read them in a report: accuracies in percent, differences of them in points."""

from api.reports.statistics import Estimate

DIGITS = 4


def shown(value: float | None, metric: str, difference: bool = False) -> str:
    """For instance `97.12 %`, `0.31 points`, `0.0123`."""
    if value is None:
        return "–"
    if is_share(metric):
        return f"{100.0 * value:.2f} {'points' if difference else '%'}"
    return f"{value:.{DIGITS}g}"


def interval(estimate: Estimate, metric: str, difference: bool = False) -> str:
    """For instance `95 % interval 0.12 to 0.45 points`."""
    if estimate.low is None or estimate.high is None:
        return "no interval"
    if is_share(metric):
        unit = "points" if difference else "%"
        return f"95 % interval {100.0 * estimate.low:.2f} to {100.0 * estimate.high:.2f} {unit}"
    return f"95 % interval {estimate.low:.{DIGITS}g} to {estimate.high:.{DIGITS}g}"


def with_interval(estimate: Estimate, metric: str) -> str:
    """For a cell of a table: `97.12 [96.80, 97.44] %`."""
    return _cell(estimate, 100.0, " %") if is_share(metric) else _cell(estimate, 1.0, "")


def signed(estimate: Estimate, metric: str) -> str:
    """A difference in a cell of a table: `+0.31 [+0.12, +0.50]`, accuracies in points."""
    return _cell(estimate, 100.0 if is_share(metric) else 1.0, "", sign="+")


def steps(estimate: Estimate) -> str:
    return _cell(estimate, 1.0, "", digits=".0f")


def plain(estimate: Estimate) -> str:
    return _cell(estimate, 1.0, "")


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def is_share(metric: str) -> bool:
    return metric.endswith("accuracy")


def _cell(estimate: Estimate, factor: float, unit: str, sign: str = "", digits: str | None = None) -> str:
    if estimate.mean is None:
        return "–"
    form = sign + (digits or (".2f" if factor != 1.0 else f".{DIGITS}g"))
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean * factor:{form}}{unit}"
    return f"{estimate.mean * factor:{form}} [{estimate.low * factor:{form}}, {estimate.high * factor:{form}}]{unit}"
