"""An analyst beside a worker on the embedded Kafka: its lag and memory, and what the worker loses in freshness.

The worker gets a graph of follows and then a stream of changes at a fixed rate. It is measured alone, with an analyst
that starts, rebuilds the graph from the log and follows it, and alone again.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from graphstate.types import Kind, Mutation
from streams.kafka.topics import Topics
from streams.messages.files.event_files import row_of
from streams.settings.settings import Settings
from tests.bench.e2e_feed import messages
from tests.chaos.network import free_ports
from tests.load.feed import send
from tests.load.rig import Rig, Sample, end_well, p_ms
from tests.support.analysts import AnalystProcess
from tests.support.workers import producer, wait_for

START_US = 1_700_000_000_000_000
READY_S = 1_800.0
SAMPLE_S = 2.0
SETTLE_S = 10.0
TOGETHER = 500
"""Events of the first graph in one message."""


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


def feed(broker: str, users: int, follows: int, rate: float) -> None:
    """Send changes at a rate until the process is ended."""
    from tests.bench.analyst import random_follows

    stream = messages(changes(users, *random_follows(users, follows)))
    asyncio.run(send(Settings.load(broker=broker), stream, rate, 0, 0))


def run(users: int, follows: int, rate: int, minutes: float) -> dict[str, Any]:
    """Measure a worker alone, with an analyst for some minutes, and alone again, half as long each."""
    end_well()
    with (
        tempfile.TemporaryDirectory(prefix="groundswell-") as folder,
        Rig(Path(folder), workers=1, shards=1, retention_s=0) as rig,
    ):
        _load(rig, users, follows)
        feeder = multiprocessing.get_context("spawn").Process(
            target=feed, args=(rig.kafka.address, users, follows, rate), daemon=True
        )
        feeder.start()
        try:
            before = _worker(rig, 30 * minutes)
            beside = _beside(rig, minutes)
            after = _worker(rig, 30 * minutes)
        finally:
            feeder.kill()
    return {"users": users, "follows": follows, "rate": rate, "alone": before, **beside, "alone_again": after}


def _load(rig: Rig, users: int, follows: int) -> None:
    """Send the first graph and wait until the worker has it."""
    from tests.bench.analyst import random_follows

    pairs = zip(*(column.tolist() for column in random_follows(users, follows)), strict=True)
    topic, encode = Topics(rig.settings).inputs["follow"].name, msgspec.json.Encoder().encode
    with producer(rig.settings) as sender:
        while some := list(itertools.islice(pairs, TOGETHER)):
            sender.send(topic, encode([row_of(Mutation(Kind.FOLLOW, START_US, f"u{u}", f"u{v}")) for u, v in some]))
        sender.flush()
    rig.wait_drained(READY_S)


def _worker(rig: Rig, seconds: float, first: Sample | None = None) -> dict[str, Any]:
    """Figures of the worker over some seconds, or since a sample."""
    if first is None:
        time.sleep(SETTLE_S)
        first = rig.sample()
        time.sleep(seconds)
    last = rig.sample()
    passed = last.at_s - first.at_s
    return {
        "events_per_s": round((last.done - first.done) / passed),
        "freshness_p50_ms": p_ms(last, first, 0.5),
        "freshness_p99_ms": p_ms(last, first, 0.99),
        "cores": {name: round((last.cpu_s[name] - first.cpu_s[name]) / passed, 2) for name in last.cpu_s},
        "lag_records": last.lag_records,
    }


def _beside(rig: Rig, minutes: float) -> dict[str, Any]:
    """Figures of the analyst from its start, and of the worker while the analyst follows the log."""
    (port,) = free_ports(1)
    own = {"web_port": port, "analyst_port": port, "datadir": rig.folder / "analyst"}
    analyst = Analyst(rig.settings.model_copy(update=own))
    try:
        log_events, began = rig.sample().done, time.monotonic()
        analyst.start()
        wait_for(lambda: analyst.get("/readyz")[0] == 200, READY_S, "the analyst to be ready")
        ready_s = time.monotonic() - began
        time.sleep(SETTLE_S)
        first, samples, begin = rig.sample(), [], time.monotonic()
        while time.monotonic() - begin < 60 * minutes:
            rig.check()
            samples.append(analyst.gauges())
            time.sleep(SAMPLE_S)
        worker = _worker(rig, 0, first)
        passed = time.monotonic() - begin
    finally:
        analyst.kill()
    half, last = samples[len(samples) // 2 :], samples[-1]
    cpu_s = last["process_cpu_seconds_total"] - samples[0]["process_cpu_seconds_total"]
    return {
        "beside": worker,
        "analyst": {
            "rebuilt_events": log_events,
            "ready_s": round(ready_s, 1),
            "minutes": minutes,
            "mutations_per_s": round((last["mutations_total"] - samples[0]["mutations_total"]) / passed),
            "lag_packs_max": max(sample["lag_records"] for sample in samples),
            "lag_packs_max_last_half": max(sample["lag_records"] for sample in half),
            "interval_s_max": round(max(sample["interval_seconds"] for sample in samples), 2),
            "user_bytes": round(last["user_bytes"]),
            "edge_bytes": round(last["edge_bytes"]),
            "graph_mb": round(last["memory_bytes"] / 1e6),
            "resident_mb_first": round(samples[0]["process_resident_memory_bytes"] / 1e6),
            "resident_mb": round(last["process_resident_memory_bytes"] / 1e6),
            "cores": round(cpu_s / passed, 2),
        },
    }
