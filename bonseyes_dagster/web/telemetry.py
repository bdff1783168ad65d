"""The content of `/metrics`: number and duration of requests over all processes of a container, and gauges."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "Telemetry"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# All other methods count as one, so that clients cannot add series with invented methods.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LABELLED = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>[^{}]*)\})?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"]*)"')


class Telemetry:
    """Counts requests; `render` returns the text for Prometheus.

    server.py sets $PROMETHEUS_MULTIPROC_DIR. Then prometheus_client keeps its values in files there, and each process
    can return the values of all processes. Without the variable, a process returns only its own values.
    """

    def __init__(self, gauges: Callable[[], Mapping[str, float]]) -> None:
        self._gauges = gauges
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "bonseyes_http_requests",
            "Requests answered, by route and status.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._durations = Histogram(
            "bonseyes_http_request_duration_seconds",
            "Seconds until the head of the answer, by route; long polls included.",
            ("method", "route", "status"),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )

    def record(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one answered request."""
        labels = (method if method in _METHODS else "other", route, str(status))
        self._requests.labels(*labels).inc()
        self._durations.labels(*labels).observe(duration_s)

    def render(self) -> bytes:
        """Return the metrics of all processes in Prometheus' text format."""
        registry = self._registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        gauges = CollectorRegistry()
        gauges.register(_Gauges(self._gauges()))
        return generate_latest(registry) + generate_latest(gauges)


class _Gauges(Collector):
    """The gauges of a backend; a name may have labels, as in `artifacts{phase="queued"}`."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values

    def collect(self) -> Iterable[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for key, value in self._values.items():
            match = _LABELLED.fullmatch(key)
            if match is None:
                raise ValueError(f"{key!r} is not the name of a gauge.")
            name = match["name"] if match["name"].startswith("bonseyes_") else f"bonseyes_{match['name']}"
            labels = dict(_LABEL.findall(match["labels"] or ""))
            if name not in families:
                families[name] = GaugeMetricFamily(name, name.replace("_", " "), labels=list(labels))
            families[name].add_metric(list(labels.values()), value)
        return families.values()
