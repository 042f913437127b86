"""`/metrics`, `/readyz` and `/livez` of a real worker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import Settings
from streams.worker.worker import free_port
from tests.support.workers import WorkerProcess, producer, read_all, wait_for

EVENTS = 400
BAD = 3


@dataclass
class Ran:
    """A worker that has processed EVENTS good and BAD bad events, one per message; `text` is its `/metrics`."""

    process: WorkerProcess
    topics: Topics
    text: str = ""

    def value(self, name: str, **labels: str) -> float:
        """The sum over all samples with this name and these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture(scope="module")
def ran(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """A worker that has processed its events."""
    folder = tmp_path_factory.mktemp("metrics")
    prefix = f"{folder.name}.{free_port('127.0.0.1')}."
    settings = Settings.load(
        broker=kafka.address, prefix=prefix, datadir=folder / "state", web_port=free_port("127.0.0.1"), audit_share=1.0
    )
    process = WorkerProcess(settings)
    # A start from the command takes seconds in which it is seen not to be ready.
    process.forks = False
    found = Ran(process, Topics(settings))
    with admin(settings) as client:
        create(client, found.topics.all())
    process.start()
    try:
        process.wait_ready()
        with producer(settings) as sender:
            for number in range(EVENTS):
                kind = ("create", "share")[number % 2]
                event = {"type": kind, "time": time.time(), "user": f"u{number % 40}", "content": f"c{number // 4}"}
                sender.send(found.topics.inputs[kind].name, json.dumps(event).encode())  # type: ignore[index]
            for _ in range(BAD):
                sender.send(found.topics.follow.name, b"?")

        def done() -> bool:
            found.text = process.get("/metrics")[1].decode()
            return (
                found.value("groundswell_mutations_total") == EVENTS
                and found.value("groundswell_dead_letters_total") == BAD
                and found.value("groundswell_lag_records") == 0
                and found.value("groundswell_live_users") == 40
            )

        wait_for(done, 60, "all events")
        yield found
        assert process.stop() == 0
    finally:
        process.kill()


def test_readiness_follows_state_and_partitions(ran: Ran) -> None:
    """`/readyz` is 503 while the state is loaded and offsets are sought, then 200 with the owned partitions."""
    assert ran.process.seen[0][0] == 503
    assert all(status == 503 for status, _ in ran.process.seen[:-1])
    assert all(not body["ready"] and body["detail"] for _, body in ran.process.seen[:-1])
    status, body = ran.process.seen[-1]
    assert (status, body["ready"], len(body["partitions"])) == (200, True, 14)
    assert ran.value("groundswell_ready") == 1


def test_liveness_starts_before_readiness(settings: Settings) -> None:
    """`/livez` answers as soon as the port is open."""
    process = WorkerProcess(settings)
    process.forks = False
    process.start()
    try:
        wait_for(lambda: process.get("/livez")[0] == 200, 60, "the web port")
        assert process.get("/readyz")[0] == 503
        process.wait_ready()
        assert process.stop() == 0
    finally:
        process.kill()


def test_metric_names_follow_the_conventions(ran: Ran) -> None:
    """Every metric parses, has a help text, the project's prefix, base units, and `_total` if it is a counter."""
    families = list(text_string_to_metric_families(ran.text))
    assert len(families) > 25
    for family in families:
        assert family.name.startswith("groundswell_"), family.name
        assert family.documentation, family.name
        assert not family.name.endswith(("_ms", "_us", "_milliseconds", "_kb", "_mb", "_minutes")), family.name
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples), family.name
        else:
            assert not family.name.endswith("_total"), family.name
        for sample in family.samples:
            assert "user" not in sample.labels or sample.labels["user"] == "", sample


def test_counters_equal_the_topics(ran: Ran) -> None:
    """Every counter equals the number of records on its topic."""
    settings = ran.process.settings
    assert ran.value("groundswell_events_total", type="create", outcome="accepted") == EVENTS / 2
    assert ran.value("groundswell_events_total") == EVENTS
    assert ran.value("groundswell_mutations_total", outcome="applied") == EVENTS
    assert ran.value("groundswell_repeated_messages_total") == 0
    assert ran.value("groundswell_scores_total") == len(read_all(settings, [ran.topics.score.name]))
    assert ran.value("groundswell_alerts_total") == len(read_all(settings, [ran.topics.alert.name]))
    assert ran.value("groundswell_dead_letters_total", topic=ran.topics.follow.name, reason="json") == BAD
    # Counters that alerts watch exist before the first event.
    assert f'groundswell_dead_letters_total{{reason="utf8",topic="{ran.topics.share.name}"}} 0.0' in ran.text
    assert ran.value("groundswell_batch_mutations_sum") == EVENTS


def test_freshness_counts_every_message(ran: Ran) -> None:
    """Every message is in the freshness histogram, with plausible seconds."""
    assert ran.value("groundswell_freshness_seconds_count") == EVENTS
    assert 0 < ran.value("groundswell_freshness_seconds_sum") < 60 * EVENTS
    assert ran.value("groundswell_freshness_seconds_bucket", le="+Inf") == EVENTS


def test_state_is_measured(ran: Ran) -> None:
    """Nodes, RocksDB, the model and the lag have values."""
    assert ran.value("groundswell_nodes", type="user") == 40
    assert ran.value("groundswell_rocksdb_bytes") > 0
    assert ran.value("groundswell_rocksdb_stalled") == 0
    assert ran.value("groundswell_model_info") == 1
    assert 0 <= ran.value("groundswell_as_of_lag_seconds") < 120
    assert "# TYPE groundswell_lag_records gauge" in ran.text
    assert {stage for stage in ("apply", "step", "acknowledge", "commit") if f'stage="{stage}"' in ran.text} == {
        "apply",
        "step",
        "acknowledge",
        "commit",
    }


def test_the_worker_audits_its_users(ran: Ran) -> None:
    """While it serves, the worker audits more than 40 users and finds no difference."""

    def audited() -> bool:
        ran.text = ran.process.get("/metrics")[1].decode()
        return ran.value("groundswell_audit_nodes_total", outcome="fine") > 40

    # The reference is imported at a low priority.
    wait_for(audited, 300, "the audit")
    assert ran.value("groundswell_audit_nodes_total", outcome="healed") == 0
    assert ran.value("groundswell_audit_nodes_total", outcome="failed") == 0
    assert 0 < ran.value("groundswell_audit_error") <= 1e-5
    assert ran.value("groundswell_audit_seconds_total") > 0
