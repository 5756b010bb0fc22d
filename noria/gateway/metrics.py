"""What the gateway counts, in a registry of its own."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
"""Label of requests for tasks that the snapshot does not know, so that no caller can grow the label set."""

_BOUNDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    float("inf"),
)
_LABELS = (*map(str, _BOUNDS[:-1]), "+Inf")


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))
    total: float = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(_BOUNDS, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        sums = itertools.accumulate(self.counts)
        return list(zip(_LABELS, sums, strict=True))


@dataclass(slots=True)
class _Tally:
    """What is counted of one task: plain numbers, which become Prometheus' families only when somebody looks."""

    statuses: dict[int, int] = field(default_factory=dict)
    seconds: _Histogram = field(default_factory=_Histogram)
    first: _Histogram = field(default_factory=_Histogram)
    between: _Histogram = field(default_factory=_Histogram)
    prompt: int = 0
    completion: int = 0


class Metrics:
    """Counts by task; one instance, with a registry of its own, per gateway. Used from one thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refused = Counter(
            "noria_gateway_refused", "Requests refused before they reached a task", ["status"], registry=self.registry
        )
        self.unlogged = Counter(
            "noria_gateway_unlogged", "Answers withheld because they could not be logged", registry=self.registry
        )
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._upstreams: Mapping[str, int] = {}
        self._version = 0
        self.registry.register(self)

    def finished(
        self, task: str, arm: str, status: int, seconds: float, first: float | None, tokens: tuple[int, int]
    ) -> None:
        """Count one finished request. `task` must be a known one or OTHER; tokens are those of prompt and answer."""
        tally = self._tallies.get((task, arm))
        if tally is None:
            tally = self._tallies[task, arm] = _Tally()
        tally.statuses[status] = tally.statuses.get(status, 0) + 1
        tally.seconds.observe(seconds)
        if first is not None:
            tally.first.observe(first)
            if tokens[1] > 1:
                tally.between.observe((seconds - first) / (tokens[1] - 1))
        tally.prompt += tokens[0]
        tally.completion += tokens[1]

    def expose(self, inflight: Mapping[str, int], version: int) -> bytes:
        """Everything in Prometheus' text format, with the state of the moment."""
        self._upstreams, self._version = inflight, version
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Of prometheus-client's collectors."""
        both = ["task", "arm"]
        requests = CounterMetricFamily(
            "noria_gateway_requests", "Requests by the status they ended with", labels=[*both, "status"]
        )
        seconds = HistogramMetricFamily(
            "noria_gateway_seconds", "Seconds from request to the end of the answer", labels=both
        )
        first = HistogramMetricFamily(
            "noria_gateway_first_token_seconds", "Seconds to the first text of a streamed answer", labels=both
        )
        between = HistogramMetricFamily(
            "noria_gateway_inter_token_seconds", "Mean seconds between two tokens of a streamed answer", labels=both
        )
        tokens = CounterMetricFamily(
            "noria_gateway_tokens", "Tokens as counted by engines", labels=[*both, "direction"]
        )
        for labels, tally in self._tallies.items():
            for status, count in tally.statuses.items():
                requests.add_metric([*labels, str(status)], count)
            for family, histogram in ((seconds, tally.seconds), (first, tally.first), (between, tally.between)):
                family.add_metric([*labels], histogram.buckets(), histogram.total)
            tokens.add_metric([*labels, "prompt"], tally.prompt)
            tokens.add_metric([*labels, "completion"], tally.completion)
        upstreams = GaugeMetricFamily(
            "noria_gateway_inflight", "Requests that an upstream is working on", labels=["upstream"]
        )
        for url, count in self._upstreams.items():
            upstreams.add_metric([url], count)
        version = GaugeMetricFamily("noria_gateway_snapshot_version", "Version of the snapshot in use", self._version)
        yield from (requests, seconds, first, between, tokens, upstreams, version)
