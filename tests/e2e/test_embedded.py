"""The embedded Kafka: fast start, durable data over restarts, and an end together with its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from streams.embedded import EmbeddedKafka, jars
from streams.embedded.broker import properties
from streams.errors import EmbeddedKafkaError
from streams.kafka import topics
from streams.settings.settings import Settings

# Twice the limit on an idle machine, because shared cores are slower.
READY_S = 20.0


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether the process ends in time."""
    deadline = time.monotonic() + within_s
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_it_starts_quickly_and_leaves_nothing_after_stop() -> None:
    """It accepts requests within seconds; after the stop no process and no file remains."""
    jars.classpath()
    start = time.monotonic()
    with EmbeddedKafka() as kafka:
        assert time.monotonic() - start < READY_S
        pid, folder = kafka.pid, kafka.folder
        with topics.admin(Settings.load(broker=kafka.address)) as client:
            assert client.list_topics() == []
    assert gone(pid)
    assert not folder.exists()


def _send(address: str, topic: str, value: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True)
    producer.send(topic, value).get(timeout=30)
    producer.close()


def _values(address: str, topic: str) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    end = consumer.end_offsets([partition])[partition]
    values: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(values) < end and time.monotonic() < deadline:
        values += [record.value for batch in consumer.poll(timeout_ms=500).values() for record in batch]
    consumer.close()
    return values


def test_restarts_keep_data_and_address(tmp_path: Path) -> None:
    """Acknowledged records survive a stop, a kill, and a change of the folder's owner."""
    spec = topics.TopicSpec("kept", 1, "")
    with EmbeddedKafka(tmp_path / "kafka") as kafka:
        address = kafka.address
        with topics.admin(Settings.load(broker=address)) as client:
            topics.create(client, [spec])
        _send(address, "kept", b"one")
        kafka.restart()
        _send(address, "kept", b"two")
        kafka.restart(kill=True)
        assert kafka.address == address
        assert _values(address, "kept") == [b"one", b"two"]
    with EmbeddedKafka(tmp_path / "kafka") as kafka:
        assert _values(kafka.address, "kept") == [b"one", b"two"]


CHILD = """
import sys, time
from streams.embedded import EmbeddedKafka
kafka = EmbeddedKafka().start()
print(kafka.pid, kafka.folder, flush=True)
time.sleep(600)
"""


def test_it_ends_when_its_parent_is_killed() -> None:
    """A parent killed by SIGKILL leaves neither the broker nor its temporary folder."""
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        assert alive(int(pid))
        parent.kill()
        parent.wait()
        assert gone(int(pid))
        deadline = time.monotonic() + 5
        while Path(folder).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(folder).exists()


def test_it_ends_when_its_supervisor_is_killed(kafka: EmbeddedKafka) -> None:
    """Killing the supervisor kills Java too: no broker runs without a supervisor."""
    with EmbeddedKafka() as other:
        assert other._supervisor is not None
        other._supervisor.kill()
        assert gone(other.pid)
    assert alive(kafka.pid)


def test_a_failed_start_names_the_reason(tmp_path: Path) -> None:
    """A folder with another cluster's data is refused with Kafka's own message."""
    folder = tmp_path / "kafka" / "data"
    folder.mkdir(parents=True)
    (folder / "meta.properties").write_text("version=1\nnode.id=99\ncluster.id=other\n")
    with pytest.raises(EmbeddedKafkaError, match="Kafka ended while starting"), EmbeddedKafka(tmp_path / "kafka"):
        pass


def test_the_heap_is_limited() -> None:
    """Java gets at most 512 MB of heap."""
    broker = EmbeddedKafka()
    heap = next(word for word in broker._java("Main") if word.startswith("-Xmx"))
    assert int(heap.removeprefix("-Xmx").removesuffix("m")) <= 512


def test_the_message_limit_is_kafkas_default() -> None:
    """Tests at the size limit then test the limit of a real broker."""
    assert "message.max.bytes" not in properties(Path("x"), 1, 2)
    assert os.sep not in jars.LOCK.name
