"""Prometheus metrics, in a separate registry per server so that a process may run several."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from image_finder.components.app.api.limits import Load

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PREFIX = "image_finder_"
_METHODS = {"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH"}


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, histogram = partial(Counter, registry=self.registry), partial(Histogram, registry=self.registry)
        seconds = partial(histogram, buckets=_SECONDS)
        self._requests = counter(f"{_PREFIX}requests", "answered requests", ("method", "route", "status"))
        self._seconds = seconds(f"{_PREFIX}request_seconds", "time to the answer", ("route",))
        self._stages = seconds(f"{_PREFIX}stage_seconds", "duration of a search stage", ("stage",))
        self.batch = histogram(f"{_PREFIX}batch_searches", "searches per batch", buckets=(1, 2, 4, 8, 16, 32))
        self.swaps = counter(f"{_PREFIX}index_swaps", "new indexes opened")
        self.failures = counter(f"{_PREFIX}index_failures", "new indexes that could not be opened")

    def note_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. route: template of the path, so that ids create no new series."""
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def note_stages(self, milliseconds: Mapping[str, float]) -> None:
        for stage, value in milliseconds.items():
            self._stages.labels(stage).observe(value / 1000)

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        gauge = Gauge(f"{_PREFIX}{name}", help_text, registry=self.registry)
        gauge.set_function(value)

    def watch_loads(self, loads: Iterable[Load]) -> None:
        self.registry.register(_Loads(list(loads)))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Loads(Collector):
    def __init__(self, loads: list[Load]) -> None:
        self._loads = loads

    def collect(self) -> Iterable[Metric]:
        waiting = GaugeMetricFamily(f"{_PREFIX}waiting", "queued calls", labels=("kind",))
        refused = CounterMetricFamily(f"{_PREFIX}refused", "calls refused with 503", labels=("kind",))
        for load in self._loads:
            waiting.add_metric((load.name,), load.n_waiting)
            refused.add_metric((load.name,), load.n_refused)
        return (waiting, refused)
