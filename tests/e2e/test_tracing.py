"""Traces of a real worker: from a traced input message over its pack to its score, at an OTLP collector."""

from __future__ import annotations

import json
from typing import Any

from streams.kafka.topics import Topics
from streams.messages.headers import TRACEPARENT
from streams.settings.settings import Settings
from tests.support.collectors import collector
from tests.support.workers import producer, read_all, wait_for, worker

TRACES = ["0af7651916cd43dd8448eb211c80319c", "1af7651916cd43dd8448eb211c80319d"]
PARENT = "b7ad6b7169203331"


def trace_of(record: Any) -> list[str]:
    """The parts of the `traceparent` of a record."""
    return next(value.decode().split("-") for name, value in record.headers if name == TRACEPARENT)


def test_a_trace_leads_from_the_message_to_its_score(settings: Settings) -> None:
    """Input message ─► span of ingest ─► pack ─► span of the micro-batch ─► score, all in one trace."""
    topics = Topics(settings)
    with collector() as collected:
        own = settings.model_copy(update={"trace_endpoint": collected.url, "trace_share": 0.0})
        with worker(own) as running:
            with producer(own) as sender:
                share = {"type": "share", "time": 1_700_000_000, "user": "ana", "content": "c"}
                # The second is in the same poll: it is linked. The third has a header that is not valid.
                for trace in [f"00-{one}-{PARENT}-01" for one in TRACES] + ["00-nonsense"]:
                    value = json.dumps(share | {"user": f"u{trace[3:6]}"}).encode()
                    headers = [(TRACEPARENT, trace.encode())]
                    sender.send(topics.share.name, value, headers=headers, partition=0)
            wait_for(lambda: len(read_all(own, [topics.score.name])) >= 3, 60, "the scores")
            # A span ends with the commit of its step, and is sent a few seconds later.
            wait_for(lambda: "micro-batch" in collected.in_trace(TRACES[0]), 60, f"spans, not {collected.spans}")
            (score, *_), (pack, *_) = read_all(own, [topics.score.name]), read_all(own, [topics.mutations.name])
            assert running.stop() == 0
            lines = [json.loads(line) for line in running.log.read_text().splitlines()]
        spans = collected.in_trace(TRACES[0])
    assert set(spans) == {"ingest", "micro-batch"}
    ingest, step = spans["ingest"], spans["micro-batch"]
    assert ingest.parent_span_id.hex() == PARENT
    assert trace_of(pack) == ["00", TRACES[0], ingest.span_id.hex(), "01"]
    assert step.parent_span_id == ingest.span_id
    assert trace_of(score) == ["00", TRACES[0], step.span_id.hex(), "01"]
    assert {"groundswell.mutations", "groundswell.scores", "groundswell.shard"} <= {one.key for one in step.attributes}
    linked = {link.trace_id.hex() for span in spans.values() for link in span.links}
    assert linked == {TRACES[1]} or "ingest" in collected.in_trace(TRACES[1])
    assert collected.services == {own.consumer_group}
    # The log of a healthy worker: no warning, and at most one line a second about what it did.
    assert {line["level"] for line in lines} == {"info"}
    done = [line for line in lines if line["event"] == "events_processed"]
    assert (sum(line["events"] for line in done), sum(line["scores"] for line in done) >= 3) == (3, True)
    # With a share of 0 nothing else is traced.
    assert {span.trace_id.hex() for span in collected.spans} <= set(TRACES)
