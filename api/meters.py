"""What Prometheus reads of this process. One registry per application, so that two in one process never mix."""

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class HotRequests(Collector):
    """Requests of the two hot routes: plain counts, made into samples only when Prometheus asks."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], list[int]] = {}
        self._nanoseconds: Counts[tuple[str, int]] = Counts()

    def count(self, route: str, status: int, nanoseconds: int) -> None:
        counts = self._counts.get((route, status))
        if counts is None:
            counts = self._counts[route, status] = [0] * (len(LATENCY_BUCKETS) + 1)
        counts[bisect_left(LATENCY_BUCKETS, nanoseconds * 1e-9)] += 1
        self._nanoseconds[route, status] += nanoseconds

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(
            "evenkeel_inference_request_seconds",
            "Time of predict and infer requests from their headers to their answer",
            labels=("route", "status"),
        )
        for (route, status), counts in self._counts.items():
            bounds = (*map(str, LATENCY_BUCKETS), "+Inf")
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric((route, str(status)), buckets, self._nanoseconds[route, status] / 1e9)
        yield family


class Meters:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.hot = HotRequests()
        self.registry.register(self.hot)
        self.requests = Counter(
            "evenkeel_http_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "evenkeel_http_request_seconds",
            "Time to the first byte of the answer",
            ["method", "route"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.streams = Gauge("evenkeel_event_streams", "Streams and long polls that are open", registry=self.registry)
        self.jobs = Gauge("evenkeel_jobs", "Jobs by state", ["state"], registry=self.registry)
