"""Spans to an OpenTelemetry collector, over OTLP/HTTP with protobuf bodies, from a thread of its own."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from noria import __version__
from noria.errors import Unavailable

WAITING_BYTES: Final = 8 * 1024 * 1024
"""What may wait to be sent; more than that is given up."""
BATCH: Final = 256
"""Requests whose spans are sent together."""
PAUSE_SECONDS: Final = 1.0
EXPORT_SECONDS: Final = 5.0
"""What one export may take, repetitions included."""


class Span(Protocol):
    """A finished span: hexadecimal identifiers, times in nanoseconds since 1970."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def trace(self) -> str:
        """The trace's 32 digits."""

    @property
    def id(self) -> str:
        """Its own 16 digits."""

    @property
    def parent(self) -> str:
        """The parent's 16 digits, or nothing."""

    @property
    def began(self) -> int:
        """When it began."""

    @property
    def ended(self) -> int:
        """When it ended."""

    @property
    def attributes(self) -> dict[str, Any]:
        """Its attributes."""

    @property
    def client(self) -> bool:
        """Whether another server was called."""

    @property
    def error(self) -> str:
        """Why it failed, or nothing."""


class OtlpExporter:
    """Sends spans in batches. `send` and `close` are called from one thread."""

    def __init__(self, address: str, instance: str) -> None:
        """`address` is the collector's, `instance` names this process. Raises Unavailable without `noria[otel]`."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ModuleNotFoundError as error:
            raise Unavailable(
                f"spans cannot be sent: the package '{error.name}' is missing", "pip install 'noria[otel]'"
            ) from error
        endpoint = address if urlsplit(address).path.strip("/") else f"{address.rstrip('/')}/v1/traces"
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)
        self._resource = Resource.create(
            {"service.name": "noria-gateway", "service.version": __version__, "service.instance.id": instance}
        )
        self._scope = InstrumentationScope("noria", __version__)
        self._waiting: deque[tuple[Callable[[], Sequence[Span]], int]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def send(self, make: Callable[[], Sequence[Span]], size: int) -> bool:
        """Send later what `make` gives; False when more than WAITING_BYTES would wait."""
        with self._lock:
            if self._bytes + size > WAITING_BYTES:
                return False
            self._bytes += size
        self._waiting.append((make, size))
        return True

    def close(self) -> None:
        """Send what is waiting, for about EXPORT_SECONDS at the most."""
        self._closing.set()
        self._thread.join(EXPORT_SECONDS)
        self._exporter.shutdown()

    def _run(self) -> None:
        while not self._closing.wait(PAUSE_SECONDS):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            # A failed export is logged and retried by the exporter itself, and then given up.
            self._exporter.export([self._span(each) for make, _ in batch for each in make()])
            with self._lock:
                self._bytes -= sum(size for _, size in batch)

    def _span(self, span: Span) -> Any:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        trace, sampled = int(span.trace, 16), TraceFlags(TraceFlags.SAMPLED)
        return ReadableSpan(
            name=span.name,
            context=SpanContext(trace, int(span.id, 16), is_remote=False, trace_flags=sampled),
            parent=SpanContext(trace, int(span.parent, 16), is_remote=True) if span.parent else None,
            resource=self._resource,
            attributes=span.attributes,
            kind=SpanKind.CLIENT if span.client else SpanKind.SERVER,
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=span.began,
            end_time=span.ended,
            instrumentation_scope=self._scope,
        )


def open(address: str) -> OtlpExporter:
    """An exporter for this process to the collector at `address`; raises Unavailable without `noria[otel]`."""
    return OtlpExporter(address, f"{os.uname().nodename}:{os.getpid()}")
