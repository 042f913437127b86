"""Traces: a span for each step of ingest and each micro-batch, sent to an OTLP collector (extra `otel`).

A message may carry the W3C header `traceparent`. A step reads many messages, a span has one parent: the first traced
message is the parent of the step, further ones are linked. Packs of the log and outputs carry the `traceparent` of the
span of their step, so that one trace leads from an input message over its pack to the score.

    producer ─► ingest ─► micro-batch ─► consumer of the scores

Without a collector in the settings `OFF` is used: no header is read, no span is made.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

from streams.messages.headers import TRACEPARENT, Headers
from streams.settings.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Span as OtelSpan

log = logging.getLogger(__name__)

LINKS_MAX = 64
"""Further messages to which a span is linked."""
EXPORT_S = 5.0
"""Maximum duration of a request to the collector, and of sending what is left at the end."""


class StepSpan(Protocol):
    """The span of a step.

    Attributes:
        headers: headers of the messages that the step sends.
    """

    headers: Headers

    def end(self, attributes: Mapping[str, float]) -> None:
        """End the span with these attributes; a span that is not ended is not sent."""
        ...


class _NoSpan:
    """Nothing is traced."""

    headers: Headers = []  # noqa: RUF012 - never changed

    def end(self, attributes: Mapping[str, float]) -> None:
        """Do nothing."""


NO_SPAN: StepSpan = _NoSpan()


class Tracer:
    """Begins spans; this one begins none.

    Attributes:
        on: whether spans are made.
    """

    on = False

    def begin(self, name: str, traceparents: Sequence[bytes], attributes: Mapping[str, Any]) -> StepSpan:
        """Begin the span of a step.

        Args:
            name: what the step does.
            traceparents: headers of the messages that it reads.
            attributes: further attributes.
        """
        _ = name, traceparents, attributes
        return NO_SPAN

    def close(self) -> None:
        """Send what is left, for at most `EXPORT_S`."""


OFF = Tracer()


def traceparents(records: Iterable[Any]) -> list[bytes]:
    """Return the `traceparent` of each of these records that has one, at most `LINKS_MAX` + 1."""
    found: list[bytes] = []
    for record in records:
        for name, value in getattr(record, "headers", None) or ():
            if name == TRACEPARENT and value:
                found.append(value)
                break
        if len(found) > LINKS_MAX:
            break
    return found


def tracer_of(settings: Settings) -> Tracer:
    """Return a tracer that sends to the collector of the settings, `OFF` without one."""
    return OtlpTracer(settings) if settings.trace_endpoint else OFF


class OtlpTracer(Tracer):
    """Begins spans of OpenTelemetry, which a thread of its own sends in batches; a full queue drops spans.

    Args:
        settings: collector, share of traces, and names.
    """

    on = True

    def __init__(self, settings: Settings) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        names = {"service.name": settings.consumer_group, "service.instance.id": settings.instance}
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.trace_share)),
            resource=Resource.create({name: value for name, value in names.items() if value}),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=settings.trace_endpoint, timeout=EXPORT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("groundswell")

    def begin(self, name: str, traceparents: Sequence[bytes], attributes: Mapping[str, Any]) -> StepSpan:
        """Begin a span; a `traceparent` that is not valid is ignored."""
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        extract = TraceContextTextMapPropagator().extract
        contexts = [extract({TRACEPARENT: value.decode("ascii", "replace")}) for value in traceparents]
        spans = [trace.get_current_span(context).get_span_context() for context in contexts]
        valid = [(context, span) for context, span in zip(contexts, spans, strict=True) if span.is_valid]
        links = [trace.Link(span) for _, span in valid[1:]]
        parent = valid[0][0] if valid else None
        return OtlpSpan(
            self._tracer.start_span(
                name, context=parent, kind=trace.SpanKind.CONSUMER, attributes=dict(attributes), links=links
            )
        )

    def close(self) -> None:
        """Send what is left; a collector that does not answer must not keep the process."""
        sending = Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(EXPORT_S)
        if sending.is_alive():
            log.warning("traces_not_sent", extra={"seconds": EXPORT_S})


class OtlpSpan:
    """A span of OpenTelemetry that has begun."""

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        context = span.get_span_context()
        flags = f"{int(context.trace_flags):02x}"
        self.headers: Headers = [(TRACEPARENT, f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags}".encode())]

    def end(self, attributes: Mapping[str, float]) -> None:
        """End the span."""
        self._span.set_attributes({f"groundswell.{name}": value for name, value in attributes.items()})
        self._span.end()
