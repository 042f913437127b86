"""The embedded Kafka: Apache Kafka itself on this machine, for the demo, the tests and the benchmarks.

    with EmbeddedKafka() as kafka:
        settings = Settings.load(broker=kafka.address)

One KRaft node on free ports of the loopback address, in its own folder; no Java, Docker or
Kafka needs to be installed. It ends when it is stopped or when the process that started it is
gone, however that ended.
"""

from __future__ import annotations

from streams.embedded.broker import EmbeddedKafka

__all__ = ["EmbeddedKafka"]
