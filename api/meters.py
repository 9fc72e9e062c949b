"""What Prometheus reads of this process. One registry per application, so that two in one process never mix."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Meters:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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
