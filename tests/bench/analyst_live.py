"""An analyst on the embedded Kafka: rebuilt from a log of follows, then a stream of changes; lag, memory, intervals."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from graphstate.types import Kind, Mutation
from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics, admin, create
from streams.messages.packs.mutation_packs import Packer
from streams.settings.settings import Settings
from tests.support.analysts import AnalystProcess
from tests.support.workers import producer, wait_for

START_US = 1_700_000_000_000_000
READY_S = 900.0
STEP_S = 0.2


class Analyst(AnalystProcess):
    """An analyst whose metrics are read."""

    def gauges(self) -> dict[str, float]:
        """The gauges of `/metrics`, without the prefix, summed over their labels."""
        values: dict[str, float] = {}
        for family in text_string_to_metric_families(self.get("/metrics")[1].decode()):
            for sample in family.samples:
                name = sample.name.removeprefix("groundswell_analyst_")
                values[name] = values.get(name, 0.0) + sample.value
        return values


class Log:
    """Writes mutations to the log as one input partition."""

    def __init__(self, settings: Settings, sender: Any) -> None:
        self._topic, self._sender, self._offset = Topics(settings).mutations.name, sender, 0

    def write(self, events: list[Mutation]) -> None:
        """Write some mutations."""
        packer = Packer()
        for event in events:
            packer.add("in#1:0", self._offset, self._offset, 100, [event])
            self._offset += 1
        for value in packer.finish():
            self._sender.send(self._topic, value, partition=0)


def changes(users: int, source: np.ndarray, target: np.ndarray) -> Iterator[Mutation]:
    """Follows, unfollows of what is there, creates, shares, deletes and now and then a forget, without end."""
    rng = np.random.default_rng(5)
    time_us = START_US
    while True:
        time_us += 200
        draw, user = rng.random(), f"u{rng.integers(users)}"
        if draw < 0.3:
            yield Mutation(Kind.FOLLOW, time_us, user, f"u{int(users * rng.random() ** 2)}")
        elif draw < 0.5:
            edge = rng.integers(len(source))
            yield Mutation(Kind.UNFOLLOW, time_us, f"u{source[edge]}", f"u{target[edge]}")
        elif draw < 0.6:
            yield Mutation(Kind.CREATE, time_us, user, f"c{rng.integers(users)}")
        elif draw < 0.99:
            yield Mutation(Kind.SHARE, time_us, user, f"c{rng.integers(users)}")
        elif draw < 0.9999:
            yield Mutation(Kind.DELETE, time_us, user, f"c{rng.integers(users)}")
        else:
            yield Mutation(Kind.FORGET, time_us, user)


def run(users: int, follows: int, rate: int, minutes: float) -> dict[str, Any]:
    """Rebuild an analyst from `follows` follows, then send `rate` changes per second for some minutes."""
    from tests.bench.analyst import random_follows

    source, target = random_follows(users, follows)
    with tempfile.TemporaryDirectory(prefix="groundswell-") as folder, EmbeddedKafka() as kafka:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        settings = Settings.load(
            broker=kafka.address, prefix="bench.", web_port=port, analyst_port=port, datadir=Path(folder) / "state"
        )
        with admin(settings, 30) as client:
            create(client, Topics(settings).all())
        with producer(settings) as sender:
            log, analyst = Log(settings, sender), Analyst(settings)
            for begin in range(0, follows, 50_000):
                pairs = zip(
                    source[begin : begin + 50_000].tolist(), target[begin : begin + 50_000].tolist(), strict=True
                )
                log.write([Mutation(Kind.FOLLOW, START_US, f"u{u}", f"u{v}") for u, v in pairs])
            sender.flush()
            try:
                began = time.monotonic()
                analyst.start()
                wait_for(lambda: analyst.get("/readyz")[0] == 200, READY_S, "the analyst to be ready")
                ready_s = time.monotonic() - began
                samples = list(_stream(log, sender, analyst, changes(users, source, target), rate, minutes))
            finally:
                analyst.kill()
    half, last = samples[len(samples) // 2 :], samples[-1]
    cpu_s = last["process_cpu_seconds_total"] - samples[0]["process_cpu_seconds_total"]
    return {
        "users": users,
        "follows": follows,
        "rate": rate,
        "minutes": minutes,
        "ready_s": round(ready_s, 1),
        "sent_per_s": round(last["sent"] / last["seconds"]),
        "lag_packs_max": max(sample["lag_records"] for sample in samples),
        "lag_packs_max_last_half": max(sample["lag_records"] for sample in half),
        "interval_s_max": max(sample["interval_seconds"] for sample in samples),
        "interval_s_last": last["interval_seconds"],
        "user_bytes": round(last["user_bytes"]),
        "edge_bytes": round(last["edge_bytes"]),
        "graph_mb": round(last["memory_bytes"] / 1e6),
        "resident_mb": round(last["process_resident_memory_bytes"] / 1e6),
        "cpu_share": round(cpu_s / last["seconds"], 2),
    }


def _stream(
    log: Log, sender: Any, analyst: Analyst, events: Iterator[Mutation], rate: int, minutes: float
) -> Iterator[dict[str, float]]:
    """Send at a rate; yield a sample of the gauges every few seconds."""
    began, sent, sampled = time.monotonic(), 0, 0.0
    while (passed := time.monotonic() - began) < 60 * minutes:
        due = int(rate * passed) - sent
        if due:
            log.write([next(events) for _ in range(min(due, rate))])
            sent += min(due, rate)
            sender.flush()
        if passed - sampled >= 2:
            sampled = passed
            yield {**analyst.gauges(), "sent": sent, "seconds": passed}
        time.sleep(STEP_S)
