"""Tracing: what is read from messages, what is written to them, and an end without a collector."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from streams.settings.settings import Settings
from streams.telemetry.tracing import LINKS_MAX, NO_SPAN, OFF, OtlpTracer, traceparents, tracer_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def record(*headers: tuple[str, bytes | None]) -> SimpleNamespace:
    """A record with these headers."""
    return SimpleNamespace(headers=headers)


def settings(**values: object) -> Settings:
    """Settings with a collector that does not answer."""
    return Settings.load(trace_endpoint="http://127.0.0.1:9/v1/traces", **values)


def test_traceparents_are_found_and_limited() -> None:
    """One per record, none of records without headers, at most one parent and the links."""
    records = [record(("a", b"b"), ("traceparent", b"1")), record(), SimpleNamespace(), record(("traceparent", None))]
    assert traceparents(records) == [b"1"]
    assert len(traceparents([record(("traceparent", b"1"))] * 1_000)) == LINKS_MAX + 1


def test_nothing_is_traced_without_a_collector() -> None:
    """The tracer is off, and its span adds no header."""
    assert tracer_of(Settings.load()) is OFF
    assert OFF.begin("a", [], {}) is NO_SPAN
    assert NO_SPAN.headers == []


def test_a_span_continues_the_first_valid_trace() -> None:
    """Invalid headers are ignored; without any a trace of its own begins."""
    tracer = OtlpTracer(settings())
    span = tracer.begin("a", [b"\xff", b"00-0-0-01", f"00-{TRACE}-{PARENT}-01".encode()], {"n": 1})
    ((name, value),) = span.headers
    assert (name, value.decode().split("-")[1]) == ("traceparent", TRACE)
    assert value.decode().split("-")[2] != PARENT
    own = tracer.begin("b", [], {}).headers[0][1].decode().split("-")
    assert own[1] not in {TRACE, "0" * 32}


@pytest.mark.parametrize(("flags", "share", "sampled"), [("00", 1.0, "00"), ("01", 0.0, "01")])
def test_the_message_decides_whether_it_is_traced(flags: str, share: float, sampled: str) -> None:
    """The flag of the message goes before the share of the settings."""
    header = OtlpTracer(settings(trace_share=share)).begin("a", [f"00-{TRACE}-{PARENT}-{flags}".encode()], {})
    assert header.headers[0][1].decode().split("-")[3] == sampled
