"""Plain sentences that the figures support, and no more."""

from collections.abc import Iterator, Mapping
from typing import Any

from api.reports.numbers import interval, plural, shown
from api.reports.observed import MEDIAN, percentile_of
from api.reports.shapes import Absent, Figures, VariantFigures
from api.reports.statistics import Estimate


def headline(figures: Figures) -> str:
    """One sentence on the whole: of the best variant against the baseline; and what is missing."""
    others = [variant for variant in figures.variants if variant.difference is not None]
    ended = [variant for variant in others if variant.final.mean is not None]
    if not ended:
        told = _nothing_yet(figures, len(others))
    else:
        sign = 1.0 if figures.higher_is_better else -1.0
        best = max(ended, key=lambda variant: sign * (variant.final.mean or 0.0))
        told = versus_baseline(best, figures)
        if len(others) > 1:
            told += f" It is the best of {len(others)}, and its interval is not widened for that choice."
    return " ".join(part for part in (told, _left_out(figures)) if part)


def sentences(figures: Figures) -> list[str]:
    found = [versus_baseline(variant, figures) for variant in figures.variants if variant.difference is not None]
    for group in figures.rates:
        name = "" if group.group == "all" else f" with {group.group}"
        if group.highest_stable is None:
            found.append(f"No learning rate{name} is known to be stable up to {group.highest_tried:g} ({group.rule}).")
        else:
            end = ", the highest tried" if group.highest_stable == group.highest_tried else ""
            found.append(f"The highest stable learning rate{name} is {group.highest_stable:g}{end} ({group.rule}).")
    return [*found, *_of_ensembles(figures), *_of_medians(figures)]


def of_the_search(search: Mapping[str, Any] | None, plan: Mapping[str, Any], figures: Figures) -> list[str]:
    """How far a search is, and what it has found; nothing of a comparison that lists its variants."""
    state = plan.get("search")
    if search is None or state is None:
        return []
    trials = [variant for variant in plan["variants"] if variant["trial"]]
    tried = len(trials) + len(state["refused"])
    here = {variant["name"] for variant in trials if variant["rung"] == state["rung"]}
    ended = [variant for variant in figures.variants if variant.name in here and variant.final.mean is not None]
    told = [f"Search ({search['kind']}): {tried} of {search['trials']} trials."]
    if ended:
        sign = 1.0 if figures.higher_is_better else -1.0
        best = max(ended, key=lambda variant: sign * (variant.final.mean or 0.0))
        of_all = f"the final {figures.metric.replace('/', ' ')} {shown(best.final.mean, figures.metric)}"
        told.append(f"The best trial is {best.name}, with {of_all} in the mean.")
    if state["rung"]:
        told.append(f"{len(trials) - len(here)} trials were left behind: their figures are of fewer steps.")
    if state["refused"]:
        told.append(f"{plural(len(state['refused']), 'trial')} could not be run: {state['refused'][0]['why']}")
    if "ended" in state:
        told.append(f"It ended before its budget was used, because its next round was refused: {state['ended']}")
    return [" ".join(told)]


def versus_baseline(variant: VariantFigures, figures: Figures) -> str:
    """For instance `batch_norm=true: the final test accuracy is 97.1 %, 0.6 points (0.2 to 1.0) higher than …`."""
    difference = variant.difference
    if difference is None or difference.final.n == 0 or difference.final.mean is None:
        yet = " yet" if figures.missing else ""
        return f"{variant.name}: not to be compared with {figures.baseline}{yet}, for with no seed did both end well."
    name = figures.metric.replace("/", " ")
    final = f"the final {name} is {shown(variant.final.mean, figures.metric)}"
    seeds = plural(difference.final.n, "paired seed")
    compared = _compared(difference.final, figures)
    return f"{variant.name}: {final}, {compared} {figures.baseline}, over {seeds}.{_faster(variant)}"


def _compared(difference: Estimate, figures: Figures) -> str:
    mean = difference.mean or 0.0
    between = interval(difference, figures.metric, difference=True)
    if difference.covers_zero:
        return f"no difference at this size ({between}, which has 0 in it) from that of"
    by = shown(abs(mean), figures.metric, difference=True)
    doubt = "one seed: no interval, so this may be chance" if difference.low is None else between
    return f"{by} ({doubt}) {'higher' if mean > 0.0 else 'lower'} than that of"


def _faster(variant: VariantFigures) -> str:
    ratio = variant.difference.steps_ratio if variant.difference else None
    if variant.targeted and variant.reached == 0:
        return " It did not reach the target."
    if ratio is None or ratio.mean is None:
        return ""
    part = "" if variant.reached == variant.targeted else f", in {variant.reached} of {variant.targeted} seeds"
    if ratio.low is None or ratio.high is None:
        return f" It took {1.0 / ratio.mean:.2g} times the steps of the baseline to the target{part} (one seed)."
    if ratio.low <= 1.0 <= ratio.high:
        return f" Steps to the target do not differ at this size (ratio {ratio.low:.2g} to {ratio.high:.2g}){part}."
    if ratio.mean > 1.0:
        how = f"{ratio.mean:.2g} times fewer steps ({ratio.low:.2g} to {ratio.high:.2g})"
    else:
        how = f"{1.0 / ratio.mean:.2g} times more steps ({1.0 / ratio.high:.2g} to {1.0 / ratio.low:.2g})"
    return f" It reached the target in {how}{part}."


def _of_ensembles(figures: Figures) -> Iterator[str]:
    for item in figures.ensembles:
        alone, together = shown(item.single.mean, item.score), shown(item.together, item.score)
        averaged = f"{item.variant}: {len(item.seeds)} seeds averaged"
        told = f"{averaged} have a test {item.score} of {together}, one alone {alone}"
        if item.gain.covers_zero:
            told += f": no gain at this size ({interval(item.gain, item.score, difference=True)}, which has 0 in it)"
        elif item.gain.low is not None:
            told += f" (gain {interval(item.gain, item.score, difference=True)} over test rows)"
        yield f"{told}."


def _of_medians(figures: Figures) -> Iterator[str]:
    """How far the median input to a layer moved in each variant, as in the paper's Figure 1 b and c."""
    for item in figures.observed:
        layer, percentile = percentile_of(item.series) or ("", 0.0)
        if percentile != MEDIAN or item.path.mean is None or item.range.mean is None:
            continue
        moved = f"moved by {item.path.mean:.3g} in all, within {item.range.mean:.3g}"
        told = f"{item.variant}: the median input to {layer} {moved}"
        ratio = item.path_ratio
        if ratio is not None and ratio.mean is not None:
            between = "" if ratio.low is None else f" (95 % interval {ratio.low:.2g} to {ratio.high:.2g})"
            told += f"; {ratio.mean:.2g} times{between} the way of {figures.baseline}"
        yield f"{told}."


def _nothing_yet(figures: Figures, others: int) -> str:
    if others == 0:
        return f"There is one variant, {figures.baseline}, and nothing to compare it with."
    if not figures.missing and figures.diverged:
        return f"No variant but {figures.baseline} has a seed that ended without diverging."
    return "Nothing to say yet: no variant beside the baseline has a seed that has ended."


def _left_out(figures: Figures) -> str:
    parts = []
    if figures.diverged:
        parts.append(f"{plural(len(figures.diverged), 'member')} diverged ({_by_variant(figures.diverged)}).")
    if figures.missing:
        verb = "is" if len(figures.missing) == 1 else "are"
        parts.append(f"{plural(len(figures.missing), 'member')} {verb} missing ({_by_variant(figures.missing)}).")
    return " ".join(parts)


def _by_variant(absent: list[Absent]) -> str:
    counted: dict[tuple[str, str], int] = {}
    for member in absent:
        kind = "" if member.outcome == "diverged" else f" {member.outcome}"
        counted[(member.variant, kind)] = counted.get((member.variant, kind), 0) + 1
    return "; ".join(f"{variant}: {count}{kind}" for (variant, kind), count in counted.items())
