"""Every metric of a worker: name, type, labels and meaning, in a registry of their own.

All names begin with `groundswell_`; units are seconds, bytes, or the thing counted. No user ids in labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import product
from time import monotonic

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.messages.events import REASONS
from streams.messages.topic_identity import REASONS as RESTARTS

PREFIX = "groundswell"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

HALF_S = 300.0
_SIZES = (1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536)
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Freshness(Collector):
    """A histogram that takes thousands of observations at once, fine enough to read quantiles from.

    Buckets: ten per decade from 1 ms to 1,000 s.
    """

    NAME = f"{PREFIX}_freshness_seconds"
    BOUNDS_S: NDArray[np.float64] = 10.0 ** (np.arange(-30, 31) / 10)

    def __init__(self) -> None:
        self._counts = np.zeros(len(self.BOUNDS_S) + 1, np.int64)
        self._sum_s = 0.0

    def observe(self, seconds: NDArray[np.float64]) -> None:
        """Count these; below 0 (clocks that disagree) counts as 0."""
        seconds = np.maximum(seconds, 0.0)
        places = np.searchsorted(self.BOUNDS_S, seconds)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum_s += float(seconds.sum())

    @property
    def count(self) -> int:
        """How many were observed."""
        return int(self._counts.sum())

    def quantile(self, q: float) -> float:
        """The q-quantile in seconds, by linear interpolation in its bucket; nan without observations."""
        total = self._counts.cumsum()
        if not total[-1]:
            return float("nan")
        rank = q * total[-1]
        place = min(int(np.searchsorted(total, rank)), len(self.BOUNDS_S) - 1)
        low = float(self.BOUNDS_S[place - 1]) if place else 0.0
        inside = (rank - (total[place] - self._counts[place])) / max(1, self._counts[place])
        return low + (float(self.BOUNDS_S[place]) - low) * min(1.0, float(inside))

    def collect(self) -> Iterator[Metric]:
        """What Prometheus reads."""
        total = self._counts.cumsum()
        names = [*(f"{bound:.6g}" for bound in self.BOUNDS_S), "+Inf"]
        buckets = [(name, float(count)) for name, count in zip(names, total, strict=True)]
        about = "Kafka's timestamp of an input message until the outputs that follow from it are acknowledged"
        yield HistogramMetricFamily(self.NAME, about, buckets=buckets, sum_value=self._sum_s)

    def describe(self) -> Iterable[Metric]:
        """The same without values."""
        return [HistogramMetricFamily(self.NAME, "")]


class Largest:
    """The largest value of the last 5 to 10 minutes: what a gauge shows of what happens now and then.

    Since the start it would stay up for good, of the last time alone a scrape would miss it.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._turned_s = clock()
        self._now = self._before = 0.0

    def take(self, value: float = 0.0) -> float:
        """Note a value; returns the largest."""
        passed_s = self._clock() - self._turned_s
        if passed_s >= HALF_S:
            self._before = self._now if passed_s < 2 * HALF_S else 0.0
            self._now = 0.0
            self._turned_s = self._clock()
        self._now = max(self._now, value)
        return max(self._now, self._before)


class Metrics:
    """All metrics of one worker.

    inputs: the names of its input topics. `labels`: the names of each metric's labels, which the registry does not tell
    of one that has no value yet.
    """

    def __init__(self, inputs: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self.labels: dict[str, tuple[str, ...]] = {}
        self._flow()
        self._work()
        self._state()
        self._checkpoints()
        self._privacy()
        self._audit()
        self._from_zero(inputs)
        ProcessCollector(namespace=PREFIX, registry=self.registry)

    def _named(self, name: str, labels: tuple[str, ...]) -> str:
        """The whole name of a metric with these labels."""
        whole = f"{PREFIX}_{name}"
        self.labels[whole] = labels
        return whole

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(self._named(name, labels), about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(self._named(name, labels), about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(self._named(name, labels), about, labels, buckets=buckets, registry=self.registry)

    def _flow(self) -> None:
        """What comes in and goes out."""
        self.freshness = Freshness()
        self.registry.register(self.freshness)
        self.events = self._counter("events_total", "Events accepted at ingest, by type", "type", "outcome")
        self.mutations = self._counter(
            "mutations_total",
            "Events by outcome at the owner of their user (applied, expired), and facts of other shards; a share with "
            "an author counts as two: its create and itself",
            "outcome",
        )
        self.repeated = self._counter("repeated_messages_total", "Input messages skipped because the state has them")
        self.restarts = self._counter(
            "input_restarts_total",
            "Input partitions that are not read on where they were left, by why: made_anew, cut_back, other_log (read "
            "from the beginning), unread (messages were deleted before they were read)",
            "topic",
            "reason",
        )
        self.dead_letters = self._counter("dead_letters_total", "Messages sent to the dead letters", "topic", "reason")
        self.scores = self._counter("scores_total", "Scores published and acknowledged")
        self.tombstones = self._counter("tombstones_total", "Scores withdrawn after a forget")
        self.alerts = self._counter("alerts_total", "Alerts published and acknowledged")
        self.muted = self._counter("muted_outputs_total", "Outputs not sent again while rebuilding from the log")
        self.facts = self._counter("facts_total", "Facts that shards told the owners of other nodes")
        self.fact_bytes = self._counter("fact_bytes_total", "Bytes of the packs that carried facts")
        self.halos = self._counter("halos_total", "Halo messages sent")
        self.halo_nodes = self._counter("halo_nodes_total", "Nodes in the halo messages that were sent")
        self.halo_bytes = self._counter("halo_bytes_total", "Bytes of the halo messages that were sent")
        self.lag = self._gauge("lag_records", "Records between what is done and the end", "topic", "partition")
        self.as_of_lag = self._gauge("as_of_lag_seconds", "The machine's clock less the event-time clock")

    def _work(self) -> None:
        """What a micro-batch costs."""
        self.batch_mutations = self._histogram("batch_mutations", "Mutations per micro-batch", _SIZES)
        self.batch_seconds = self._histogram("batch_seconds", "Time of a micro-batch, by stage", _SECONDS, "stage")
        self.ingest_seconds = self._histogram("ingest_seconds", "Time of a poll at ingest, by stage", _SECONDS, "stage")
        self.frontier = self._histogram("frontier_nodes", "Nodes recomputed per micro-batch, by layer", _SIZES, "layer")
        self.edges = self._counter("edges_touched_total", "Window edges that recomputed nodes attended to")
        self.stale_polls = self._counter("stale_polls_total", "Polls dropped because of a seek since they were fetched")
        self.hub_waiting = self._gauge(
            "hub_waiting_rows", "Readers of hubs that wait for a micro-batch that brings them up to date"
        )
        self.hub_wait = self._histogram(
            "hub_wait_seconds", "How long the longest waiting of a micro-batch's readers of hubs had", _SECONDS
        )
        self.held_rows = self._counter(
            "tolerance_held_rows_total",
            "Rows of the first layer that were computed and held back, as they moved by no more than the tolerance",
        )
        self.effect = Largest()
        self._gauge(
            "tolerance_effect",
            "Largest difference of a score (log reach) from what it would be with nothing held back, as tried on a few "
            "users in the last 5 to 10 minutes; 0.01 is about 1 % of reach",
        ).set_function(self.effect.take)
        self.rebalance = self._histogram(
            "rebalance_seconds", "From partitions revoked to positions restored", (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
        )

    def _state(self) -> None:
        """What is there."""
        self.nodes = self._gauge("nodes", "Nodes in memory, by type", "type")
        self.live_users = self._gauge("live_users", "Users who are live")
        self.shares = self._gauge(
            "shares",
            "Distinct shares by what became of them: credited; reach (of those, within the horizon of the create); "
            "waiting (for a create); beyond_retention; abandoned (the content left without a create); expired (events)",
            "outcome",
        )
        self.device_memory = self._gauge(
            "device_memory_bytes", "Embeddings, projections and windows where they are computed, by device", "device"
        )
        self.rocksdb = self._gauge("rocksdb_bytes", "RocksDB's own account of itself, by what", "kind")
        self.rocksdb_stalled = self._gauge("rocksdb_stalled", "Shards whose writes RocksDB holds back")
        self.ready = self._gauge("ready", "1 once the state is loaded and partitions are owned and sought")
        self.model = self._gauge("model_info", "The artifact in use; always 1", "version", "hidden", "heads", "window")
        self.switches = self._counter("model_switches_total", "Times that a shard went over to another artifact")

    def _checkpoints(self) -> None:
        """What was kept elsewhere."""
        self.checkpoint_age = self._gauge(
            "checkpoint_age_seconds",
            "Since the shard's newest checkpoint was taken, it came here, or it was empty",
            "shard",
        )
        self.checkpoint_bytes = self._gauge("checkpoint_bytes", "Size of the shard's newest checkpoint", "shard")
        self.checkpoint_seconds = self._gauge(
            "checkpoint_seconds", "How long the newest checkpoint took, with its upload", "shard"
        )
        self.checkpoint_uploaded = self._counter(
            "checkpoint_uploaded_bytes_total", "Bytes of checkpoints that were not there already"
        )
        self.checkpoint_failures = self._counter(
            "checkpoint_failures_total", "Checkpoints that could not be made or brought back"
        )

    def _privacy(self) -> None:
        """What was forgotten and is not gone yet."""
        self.forget_waiting = self._gauge(
            "forget_waiting_seconds", "Since somebody was forgotten who may still be in a file; 0: nobody"
        )
        self.erasures = self._counter("erasures_total", "Times that a shard's files were written anew after a forget")
        self.erase_seconds = self._gauge("erase_seconds", "How long that took the last time")
        self.erase_failures = self._counter("erase_failures_total", "Times that it failed, or a copy could not go")

    def _audit(self) -> None:
        """Whether memory holds what is committed."""
        self.audit_nodes = self._counter(
            "audit_nodes_total",
            "Random users whose score was computed anew from RocksDB: fine, healed, failed (off and not healed, or not "
            "to be read), skipped (too many neighbours, or the shard was gone)",
            "outcome",
        )
        self.audit_error = self._gauge(
            "audit_error",
            "Largest absolute error of an embedding or score (log reach) that was found in the last 5 to 10 minutes",
        )
        self.audit_seconds = self._counter("audit_seconds_total", "Seconds of work that the audit took")

    def _from_zero(self, inputs: Iterable[str]) -> None:
        """Begin the labelled counters that alerts watch at 0: to Prometheus one that first appears at 1 never rose."""
        names = list(inputs)
        for topic, reason in product(names, REASONS):
            self.dead_letters.labels(topic, reason)
        for topic, reason in product(names, RESTARTS):
            self.restarts.labels(topic, reason)
        for outcome in ("applied", "expired", "facts"):
            self.mutations.labels(outcome)
        for outcome in ("fine", "healed", "failed", "skipped"):
            self.audit_nodes.labels(outcome)

    def forget_checkpoint(self, shard: int) -> None:
        """Tell nothing more of the checkpoints of a shard that is no longer here."""
        for gauge in (self.checkpoint_age, self.checkpoint_bytes, self.checkpoint_seconds):
            with suppress(KeyError):
                gauge.remove(str(shard))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
