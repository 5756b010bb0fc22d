"""What the gateway counts, in a registry of its own."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
"""Label of requests for tasks that the snapshot does not know, so that no caller can grow the label set."""

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """Counters and histograms by task; one instance per gateway."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "noria_gateway_requests", "Chat requests by the status they ended with", ["task", "status"],
            registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "noria_gateway_seconds", "Seconds from request to the end of the answer", ["task"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._first = Histogram(
            "noria_gateway_first_token_seconds", "Seconds to the first text of a streamed answer", ["task"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._tokens = Counter(
            "noria_gateway_tokens", "Tokens as the engines count them", ["task", "direction"], registry=self.registry
        )
        self._inflight = Gauge(
            "noria_gateway_inflight", "Requests that an upstream is working on", ["upstream"], registry=self.registry
        )
        self._version = Gauge(
            "noria_gateway_snapshot_version", "Version of the snapshot in use", registry=self.registry
        )
        self.refused = Counter(
            "noria_gateway_refused", "Requests refused before they reached a task", ["status"], registry=self.registry
        )
        self.unlogged = Counter(
            "noria_gateway_unlogged", "Answers withheld because they could not be logged", registry=self.registry
        )
        self._statuses: dict[tuple[str, int], Counter] = {}
        self._children: dict[str, tuple[Histogram, Histogram, Counter, Counter]] = {}

    def finished(
        self, task: str, status: int, seconds: float, first: float | None, prompt: int | None, completion: int | None
    ) -> None:
        """Count one finished request. `task` must be a known one or OTHER."""
        counter = self._statuses.get((task, status))
        if counter is None:
            counter = self._statuses[task, status] = self._requests.labels(task, str(status))
        counter.inc()
        children = self._children.get(task)
        if children is None:
            children = self._children[task] = (
                self._seconds.labels(task), self._first.labels(task),
                self._tokens.labels(task, "prompt"), self._tokens.labels(task, "completion"),
            )  # fmt: skip
        children[0].observe(seconds)
        if first is not None:
            children[1].observe(first)
        if prompt:
            children[2].inc(prompt)
        if completion:
            children[3].inc(completion)

    def expose(self, inflight: Mapping[str, int], version: int) -> bytes:
        """Everything in Prometheus' text format."""
        self._inflight.clear()
        for upstream, count in inflight.items():
            self._inflight.labels(upstream).set(count)
        self._version.set(version)
        return generate_latest(self.registry)
