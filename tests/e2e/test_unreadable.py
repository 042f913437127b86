"""Batches that cannot be decoded: worker and commands end with one line that names the batch and the remedy."""

from __future__ import annotations

import json
import subprocess
import sys

import aiokafka.codec
import kafka.codec
import pytest
from kafka import KafkaProducer, TopicPartition

from streams import cli
from streams.embedded import EmbeddedKafka
from streams.errors import UnreadableBatch
from streams.kafka.log_io import read_inputs
from streams.kafka.topics import Topics, admin
from streams.operations import doctor, personal_data_search
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings
from tests.support.segments import damage, stored
from tests.support.workers import START_S, WorkerProcess, environment, read_all, wait_for

WITHOUT = "import sys; sys.modules['cramjam'] = None; sys.argv[1:] = ['worker']; import streams.cli as cli; cli.main()"


class WithoutCodecs(WorkerProcess):
    """A worker on an installation without the package of the codecs."""

    def start(self) -> None:
        """Start the process without waiting for it."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", WITHOUT]
            self.process = subprocess.Popen(command, env=environment(self.settings), stdout=log, stderr=log)


def send(settings: Settings, name: str, codec: str, *values: bytes) -> None:
    """Send each value as its own batch to partition 0."""
    sender = KafkaProducer(**kafka_arguments(settings), compression_type=codec)
    for value in values:
        sender.send(name, value, key=b"k", partition=0).get(30)
    sender.close()


def event(user: str) -> bytes:
    """Make a create event."""
    about = {"type": "create", "time": 1_700_000_000, "user": user, "content": f"post-{user}", "more": "a" * 500}
    return json.dumps(about).encode()


def test_a_damaged_input_batch_stops_the_worker(kafka: EmbeddedKafka, ready: Settings) -> None:
    """A wrong checksum stops worker and training; after the advised deletion of records the rest is scored."""
    name = Topics(ready).create.name
    send(ready, name, "zstd", event("first"), event("second"), event("third"))
    damage(kafka, name, 0, stored(kafka, name, 0)[1])
    process = WorkerProcess(ready)
    process.start()
    try:
        line = process.error_line()
        assert line.startswith(f"groundswell: {name} partition 0 offset 1 cannot be decoded (")
        assert "CRC" in line
        assert f'{{"partitions":[{{"topic":"{name}","partition":0,"offset":2}}],"version":1}}' in line
        with pytest.raises(UnreadableBatch, match=f"{name} partition 0 offset 1 cannot be decoded .*crc"):
            read_inputs(ready)
        with admin(ready) as client:
            client.delete_records({TopicPartition(name, 0): 2})
        process.start()
        scores = Topics(ready).score.name
        wait_for(lambda: any(one.key == b"third" for one in read_all(ready, [scores])), START_S, "the third's score")
    finally:
        process.kill()


def test_an_unknown_codec_in_the_log_stops_the_worker(kafka: EmbeddedKafka, ready: Settings) -> None:
    """A codec that no release has stops the worker on its own log too."""
    name = Topics(ready).mutations.name
    send(ready, name, "gzip", b"a" * 500)
    damage(kafka, name, 0, stored(kafka, name, 0)[0], codec=7)
    process = WorkerProcess(ready)
    process.start()
    try:
        line = process.error_line()
        assert line.startswith(f"groundswell: {name} partition 0 offset 0 cannot be decoded (")
        assert "kafka-delete-records.sh" in line
        with pytest.raises(UnreadableBatch, match=f"{name} partition 0 offset 0 cannot be decoded"):
            list(personal_data_search.search_topics(ready, "someone", lambda *_: None))
    finally:
        process.kill()


def test_a_missing_codec_package_is_named(ready: Settings) -> None:
    """Without the package of the codecs the worker exits and names it."""
    name = Topics(ready).create.name
    send(ready, name, "lz4", event("first"))
    process = WithoutCodecs(ready)
    process.start()
    try:
        line = process.error_line()
        assert line.startswith(f"groundswell: {name} partition 0 offset 0 cannot be decoded (")
        assert "lz4" in line
        assert "install the Python package cramjam" in line
    finally:
        process.kill()


@pytest.mark.parametrize("codec", [None, 2, 3, 4])
def test_commands_name_the_batch(
    kafka: EmbeddedKafka, ready: Settings, capsys: pytest.CaptureFixture[str], codec: int | None
) -> None:
    """`tail` and `dlq show` exit with 1 and one line: for a wrong checksum, and for content of another codec."""
    topics = Topics(ready)
    dead = f"{topics.share.name}.dlq"
    for name in (topics.score.name, dead):
        send(ready, name, "gzip", b"a" * 500)
        damage(kafka, name, 0, stored(kafka, name, 0)[0], codec=codec)
    for name, command in ((topics.score.name, ("tail", "scores", "--from-beginning")), (dead, ("dlq", "list"))):
        capsys.readouterr()
        assert cli.run(command) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"groundswell: {name} partition 0 offset 0 cannot be decoded (")
        assert '"offset":1' in line


def test_doctor_names_a_missing_codec(monkeypatch: pytest.MonkeyPatch, offline_settings: Settings) -> None:
    """The check `codecs` passes; without a library it names codec, client and package."""
    check = next(check for check in doctor.CHECKS if check.name == "codecs")
    assert doctor.examine(check, offline_settings).ok
    monkeypatch.setattr(aiokafka.codec, "cramjam", None)
    monkeypatch.setattr(kafka.codec, "zstd", None)
    found = doctor.examine(check, offline_settings)
    assert not found.ok
    assert "the worker cannot read lz4 (not installed): install the Python package cramjam" in found.detail
    assert "the commands cannot read zstd (not installed): install the Python package zstandard" in found.detail
    assert "the commands cannot read lz4" not in found.detail
