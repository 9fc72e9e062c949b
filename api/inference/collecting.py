"""What Prometheus reads of the models in memory: from their tallies, when it asks, so that a request pays nothing."""

from collections.abc import Iterable
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.inference.engine import Engine
from api.inference.lanes import Lane

LABELS = ("model", "version")
PARTS = ("parse", "queue", "input", "compute", "output", "reply")
OUTCOMES = ("succeeded", "failed", "rejected", "cancelled", "expired")


class EngineCollector(Collector):
    """Counters of a version start again when it was out of memory, as Prometheus expects of a restart."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        lanes = self._engine.lanes()
        yield _counter("rows", "Rows predicted", lanes, lambda lane: lane.tally.rows)
        yield _counter("batches", "Batches that the model ran", lanes, lambda lane: lane.tally.batches)
        outcomes = CounterMetricFamily(
            "evenkeel_inference_requests", "Requests by outcome", labels=(*LABELS, "outcome")
        )
        parts = CounterMetricFamily(
            "evenkeel_inference_seconds", "Time of requests and batches by part", labels=(*LABELS, "part")
        )
        waiting = GaugeMetricFamily("evenkeel_inference_waiting_rows", "Rows that wait", labels=LABELS)
        for lane in lanes:
            names = (lane.name, str(lane.version))
            for outcome in OUTCOMES:
                outcomes.add_metric((*names, outcome), getattr(lane.tally, outcome))
            for part in PARTS:
                parts.add_metric((*names, part), getattr(lane.tally, f"{part}_ns") / 1e9)
            waiting.add_metric(names, lane.rows_waiting)
        yield from (outcomes, parts, waiting)
        yield from _drift([lane for lane in lanes if lane.drift is not None])
        yield from _layers([lane for lane in lanes if lane.layers is not None])


def _drift(lanes: list[Lane]) -> Iterable[Metric]:
    shift = GaugeMetricFamily(
        "evenkeel_drift_largest_shift", "Largest shift of an input, in deviations of the training data", labels=LABELS
    )
    beyond = GaugeMetricFamily("evenkeel_drift_inputs", "Inputs beyond the threshold", labels=LABELS)
    cost = CounterMetricFamily("evenkeel_drift_seconds", "Time that looking at inputs took", labels=LABELS)
    for lane in lanes:
        assert lane.drift is not None  # chosen so
        names = (lane.name, str(lane.version))
        shift.add_metric(names, float(abs(lane.drift.shifts()).max()))
        beyond.add_metric(names, len(lane.drift.alarm.exceeded))
        cost.add_metric(names, lane.drift.seen_ns / 1e9)
    return shift, beyond, cost


def _layers(lanes: list[Lane]) -> Iterable[Metric]:
    labels = (*LABELS, "layer")
    shift = GaugeMetricFamily(
        "evenkeel_drift_layer_shift", "Largest shift of a layer's channels, in its deviations", labels=labels
    )
    z = GaugeMetricFamily("evenkeel_drift_layer_z", "The same times the root of the rows seen", labels=labels)
    cost = CounterMetricFamily("evenkeel_drift_layers_seconds", "Time that looking at layers took", labels=LABELS)
    for lane in lanes:
        layers = lane.layers
        assert layers is not None  # chosen so
        names, root = (lane.name, str(lane.version)), layers.window.rows**0.5
        for layer, found in zip(layers.names, layers.shifts().tolist(), strict=True):
            shift.add_metric((*names, layer), abs(found))
            z.add_metric((*names, layer), abs(found) * root)
        cost.add_metric(names, layers.seen_ns / 1e9)
    return shift, z, cost


def _counter(name: str, what: str, lanes: list[Lane], read: Any) -> Metric:
    family = CounterMetricFamily(f"evenkeel_inference_{name}", what, labels=LABELS)
    for lane in lanes:
        family.add_metric((lane.name, str(lane.version)), read(lane))
    return family
