"""Numbers for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import fastllm

if TYPE_CHECKING:
    from fastllm.model import Model
    from fastllm.results import Usage

__all__ = ["Clock", "Metrics"]

_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)
_NEXT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_WHOLE = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The metrics of one server; names begin with `fastllm_`, times are seconds."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self.registry = CollectorRegistry()
        model = ("model",)
        here: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("fastllm_requests", "Requests answered", ("path", "status"), **here)
        self.seconds = Histogram("fastllm_request_seconds", "Whole requests", ("path",), buckets=_WHOLE, **here)
        self.active = Gauge("fastllm_http_requests_active", "Requests being answered", **here)
        self.disconnected = Counter("fastllm_requests_disconnected", "Requests given up by the client", **here)
        self.first = Histogram(
            "fastllm_time_to_first_token_seconds", "From the request to the first token", model, buckets=_FIRST, **here
        )
        self.next = Histogram(
            "fastllm_inter_token_latency_seconds", "Between parts of an answer", model, buckets=_NEXT, **here
        )
        self.prompt = Counter("fastllm_prompt_tokens", "Tokens of prompts", model, **here)
        self.cached = Counter("fastllm_cached_tokens", "Tokens of prompts that were not computed", model, **here)
        self.completion = Counter("fastllm_completion_tokens", "Tokens made", model, **here)
        self.finished = Counter("fastllm_sequences", "Sequences that ended", ("model", "reason"), **here)
        for name in models:
            for family in (self.first, self.next, self.prompt, self.cached, self.completion):
                family.labels(name)
        self.registry.register(_Engines(models))

    def text(self) -> bytes:
        """The metrics in the text format of Prometheus."""
        return generate_latest(self.registry)

    def end(self, model: str, usage: Usage, reason: str) -> None:
        """Counts a sequence that ended."""
        self.prompt.labels(model).inc(usage.prompt_tokens)
        self.cached.labels(model).inc(usage.cached_tokens)
        self.completion.labels(model).inc(usage.completion_tokens)
        self.finished.labels(model, reason).inc()


class Clock:
    """Measures the latencies of a sequence."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._first = metrics.first.labels(model)
        self._next = metrics.next.labels(model)
        self._begin = time.perf_counter()
        self._last: float | None = None

    def tick(self) -> None:
        """Tokens came."""
        now = time.perf_counter()
        if self._last is None:
            self._first.observe(now - self._begin)
        else:
            self._next.observe(now - self._last)
        self._last = now


class _Engines(Collector):
    """What the engines say of themselves when they are asked."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        running = GaugeMetricFamily("fastllm_sequences_running", "Sequences being computed", labels=["model"])
        waiting = GaugeMetricFamily("fastllm_queue_depth", "Sequences that wait", labels=["model"])
        computed = CounterMetricFamily("fastllm_computed_tokens", "Tokens through the model", labels=["model"])
        cache = GaugeMetricFamily("fastllm_kv_cache_bytes", "Bytes of keys and values", labels=["model"])
        drafted = CounterMetricFamily("fastllm_drafted_tokens", "Tokens that were guessed", labels=["model"])
        accepted = CounterMetricFamily("fastllm_accepted_tokens", "Guesses that came true", labels=["model"])
        info = GaugeMetricFamily("fastllm_model_info", "The models", labels=["model", "architecture", "isa", "version"])
        for name, model in self._models.items():
            stats = model.stats()
            running.add_metric([name], stats.running)
            waiting.add_metric([name], stats.waiting)
            computed.add_metric([name], stats.computed_tokens)
            cache.add_metric([name], stats.cache_bytes)
            drafted.add_metric([name], stats.drafted_tokens)
            accepted.add_metric([name], stats.accepted_tokens)
            info.add_metric([name, model.architecture, model.isa, fastllm.__version__], 1)
        return (running, waiting, computed, cache, drafted, accepted, info)
