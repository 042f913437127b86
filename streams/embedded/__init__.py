"""The embedded Kafka: an Apache Kafka broker on this machine, for the demo, the tests and the benchmarks.

    with EmbeddedKafka() as kafka:
        settings = Settings.load(broker=kafka.address)

One KRaft node on free ports of the loopback address, in its own folder; needs no installed Java, Docker or Kafka. It
ends when it is stopped, or when the process that started it ends, even if that is killed.
"""

from __future__ import annotations

from streams.embedded.broker import EmbeddedKafka

__all__ = ["EmbeddedKafka"]
