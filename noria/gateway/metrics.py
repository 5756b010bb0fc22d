"""What the gateway counts. Plain numbers, which become Prometheus' families only when somebody looks."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from noria.errors import Denied, Invalid, NoriaError, NotFound, Unavailable
from noria.gateway.limits import Limited

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
_BOTH = ["task", "arm"]


def cause_of(error: NoriaError) -> str:
    """Why a request failed, as one of few words; a reached limit is `limit:` and its name."""
    if isinstance(error, Limited):
        return f"limit:{error.limit}"
    if error.code in ("timeout", "content_filter"):
        return error.code
    for kind, word in ((Invalid, "invalid"), (Denied, "denied"), (NotFound, "unknown"), (Unavailable, "unavailable")):
        if isinstance(error, kind):
            return word
    return "engine"


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

    def add(self, told: Mapping[str, Any]) -> None:
        self.counts = [mine + other for mine, other in zip(self.counts, told["counts"], strict=True)]
        self.total += told["total"]


@dataclass(slots=True)
class _Tally:
    """What is counted of one arm of a task."""

    statuses: dict[str, int] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)
    seconds: _Histogram = field(default_factory=_Histogram)
    first: _Histogram = field(default_factory=_Histogram)
    between: _Histogram = field(default_factory=_Histogram)
    prompt: int = 0
    completion: int = 0

    def add(self, told: Mapping[str, Any]) -> None:
        _sum(self.statuses, told["statuses"])
        _sum(self.causes, told["causes"])
        for mine, name in ((self.seconds, "seconds"), (self.first, "first"), (self.between, "between")):
            mine.add(told[name])
        self.prompt += told["prompt"]
        self.completion += told["completion"]


@dataclass(slots=True)
class State:
    """How things stand now: the snapshot in use, requests being served, requests in flight and breakers by upstream."""

    snapshot: int = 0
    serving: int = 0
    inflight: dict[str, int] = field(default_factory=dict)
    breakers: dict[str, str] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    """When each engine was asked last, in seconds since 1970."""
    waiting: tuple[str, ...] = ()
    """Engines that are not loaded and that requests wait for."""
    states: dict[tuple[str, str], int] = field(default_factory=dict)
    """Of several workers together: how many of them have an upstream's breaker in a state."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> State:
        """A worker's own words."""
        return cls(
            told.get("snapshot", 0), told.get("serving", 0), told.get("inflight", {}), told.get("breakers", {})
        )  # fmt: skip

    def join(self, other: State) -> None:
        """Add another worker; of the snapshots in use, the oldest counts."""
        self.snapshot = min(self.snapshot, other.snapshot) if self.snapshot else other.snapshot
        self.serving += other.serving
        _sum(self.inflight, other.inflight)
        for upstream, state in other.breakers.items():
            self.states[upstream, state] = self.states.get((upstream, state), 0) + 1


class Metrics:
    """Counts by task and arm; one instance per gateway, used from its event loop's thread."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {"unlogged": 0, "shadows_left_out": 0, "spans_dropped": 0}
        self.refusals: dict[str, int] = {}
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._state = State()

    def count(self, name: str, by: int = 1) -> None:
        """Count one of: unlogged, shadows_left_out, spans_dropped."""
        self.counts[name] += by

    def refused(self, status: int) -> None:
        """Count a request that was refused before it reached a task."""
        self.refusals[str(status)] = self.refusals.get(str(status), 0) + 1

    def finished(
        self,
        task: str,
        arm: str,
        status: int,
        seconds: float,
        first: float | None,
        tokens: tuple[int, int],
        cause: str = "",
    ) -> None:
        """Count one finished request. `task` must be a known one or OTHER; tokens are those of prompt and answer.

        `cause` is empty for an answer, else a word of `cause_of`, `client_left`, `stopped`, `unlogged` or `internal`.
        """
        tally = self._tallies.get((task, arm))
        if tally is None:
            tally = self._tallies[task, arm] = _Tally()
        word = str(status)
        tally.statuses[word] = tally.statuses.get(word, 0) + 1
        if cause:
            tally.causes[cause] = tally.causes.get(cause, 0) + 1
        tally.seconds.observe(seconds)
        if first is not None:
            tally.first.observe(first)
            if tokens[1] > 1:
                tally.between.observe((seconds - first) / (tokens[1] - 1))
        tally.prompt += tokens[0]
        tally.completion += tokens[1]

    def dump(self) -> dict[str, Any]:
        """All counts, for orjson."""
        tallies = [[task, arm, tally] for (task, arm), tally in self._tallies.items()]
        return {"counts": self.counts, "refusals": self.refusals, "tallies": tallies}

    def add(self, told: Mapping[str, Any]) -> None:
        """Add counts that another instance has dumped."""
        _sum(self.counts, told.get("counts", {}))
        _sum(self.refusals, told.get("refusals", {}))
        for task, arm, tally in told.get("tallies", ()):
            self._tallies.setdefault((task, arm), _Tally()).add(tally)

    def expose(self, state: State) -> bytes:
        """Everything in Prometheus' text format, with the state of the moment."""
        self._state = state
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Of prometheus-client's collectors."""
        yield from self._requests()
        yield from self._times()
        refused = CounterMetricFamily(
            "noria_gateway_refused", "Requests refused before they reached a task", labels=["status"]
        )
        for status, count in self.refusals.items():
            refused.add_metric([status], count)
        yield refused
        shown = {
            "unlogged": "Answers that could not be logged",
            "shadows_left_out": "Shadow requests not sent because there were too many",
            "spans_dropped": "Spans given up because the collector did not take them",
        }
        for name, words in shown.items():
            yield CounterMetricFamily(f"noria_gateway_{name}", words, self.counts[name])
        yield from self._now()

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "noria_gateway_requests", "Requests by the status they ended with", labels=[*_BOTH, "status"]
        )
        errors = CounterMetricFamily(
            "noria_gateway_errors", "Requests that got no whole answer, by cause", labels=[*_BOTH, "cause"]
        )
        limited = CounterMetricFamily(
            "noria_gateway_limited", "Requests refused because a limit was reached", labels=["task", "limit"]
        )
        tokens = CounterMetricFamily(
            "noria_gateway_tokens", "Tokens as counted by engines", labels=[*_BOTH, "direction"]
        )
        limits: dict[tuple[str, str], int] = {}
        for labels, tally in self._tallies.items():
            causes: dict[str, int] = {}
            for status, count in tally.statuses.items():
                requests.add_metric([*labels, status], count)
            for cause, count in tally.causes.items():
                word, _, limit = cause.partition(":")
                _sum(causes, {word: count})
                if limit:
                    limits[labels[0], limit] = limits.get((labels[0], limit), 0) + count
            for cause, count in causes.items():
                errors.add_metric([*labels, cause], count)
            tokens.add_metric([*labels, "prompt"], tally.prompt)
            tokens.add_metric([*labels, "completion"], tally.completion)
        for (task, limit), count in limits.items():
            limited.add_metric([task, limit], count)
        yield from (requests, errors, limited, tokens)

    def _times(self) -> Iterator[Metric]:
        seconds = HistogramMetricFamily(
            "noria_gateway_seconds", "Seconds from request to the end of the answer", labels=_BOTH
        )
        first = HistogramMetricFamily(
            "noria_gateway_first_token_seconds", "Seconds to the first text of a streamed answer", labels=_BOTH
        )
        between = HistogramMetricFamily(
            "noria_gateway_inter_token_seconds", "Mean seconds between two tokens of a streamed answer", labels=_BOTH
        )
        for labels, tally in self._tallies.items():
            for family, histogram in ((seconds, tally.seconds), (first, tally.first), (between, tally.between)):
                family.add_metric([*labels], histogram.buckets(), histogram.total)
        yield from (seconds, first, between)

    def _now(self) -> Iterator[Metric]:
        state = self._state
        upstreams = GaugeMetricFamily(
            "noria_gateway_inflight", "Requests that an upstream is working on", labels=["upstream"]
        )
        for url, count in state.inflight.items():
            upstreams.add_metric([url], count)
        breakers = GaugeMetricFamily(
            "noria_gateway_breaker", "Workers whose breaker of an upstream is in a state", labels=["upstream", "state"]
        )
        for (upstream, word), count in state.states.items():
            breakers.add_metric([upstream, word], count)
        waiting = max(0, state.serving - sum(state.inflight.values()))
        yield from (upstreams, breakers)
        yield GaugeMetricFamily("noria_gateway_serving", "Requests that have not ended", state.serving)
        yield GaugeMetricFamily("noria_gateway_queue", "Requests that no upstream is working on", waiting)
        yield GaugeMetricFamily("noria_gateway_snapshot_version", "Version of the snapshot in use", state.snapshot)


def _sum(mine: dict[str, int], other: Mapping[str, int]) -> None:
    for name, count in other.items():
        mine[name] = mine.get(name, 0) + count
