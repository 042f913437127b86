"""Every metric of a worker, with name, type, labels and meaning, in a registry of its own.

All names begin with `groundswell_`; units are seconds, bytes, or what is counted. Labels hold no user ids.
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
from streams.messages.packs.topic_identity import REASONS as RESTARTS
from streams.telemetry.thread_time import ThreadTime

PREFIX = "groundswell"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

HALF_S = 300.0
"""Half of the longest time for which `RecentMaximum` keeps a value."""
_SIZES = (1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536)
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Freshness(Collector):
    """A histogram that counts thousands of observations at once; ten buckets per decade from 1 ms to 1,000 s."""

    NAME = f"{PREFIX}_freshness_seconds"
    BOUNDS_S: NDArray[np.float64] = 10.0 ** (np.arange(-30, 31) / 10)

    def __init__(self) -> None:
        self._counts = np.zeros(len(self.BOUNDS_S) + 1, np.int64)
        self._sum_s = 0.0

    def observe(self, seconds: NDArray[np.float64]) -> None:
        """Count observations.

        Args:
            seconds: shape (n,); a negative value (clocks that differ) counts as 0.
        """
        seconds = np.maximum(seconds, 0.0)
        buckets = np.searchsorted(self.BOUNDS_S, seconds)
        self._counts += np.bincount(buckets, minlength=len(self._counts))
        self._sum_s += float(seconds.sum())

    @property
    def counts(self) -> NDArray[np.int64]:
        """A copy of the number of observations of each bucket, the last without a bound."""
        return self._counts.copy()

    @property
    def count(self) -> int:
        """The number of observations."""
        return int(self._counts.sum())

    def quantile(self, q: float) -> float:
        """Return the q-quantile in seconds, interpolated linearly in its bucket; nan without observations."""
        total = self._counts.cumsum()
        if not total[-1]:
            return float("nan")
        rank = q * total[-1]
        bucket = min(int(np.searchsorted(total, rank)), len(self.BOUNDS_S) - 1)
        low = float(self.BOUNDS_S[bucket - 1]) if bucket else 0.0
        inside = (rank - (total[bucket] - self._counts[bucket])) / max(1, self._counts[bucket])
        return low + (float(self.BOUNDS_S[bucket]) - low) * min(1.0, float(inside))

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram for Prometheus."""
        total = self._counts.cumsum()
        names = [*(f"{bound:.6g}" for bound in self.BOUNDS_S), "+Inf"]
        buckets = [(name, float(count)) for name, count in zip(names, total, strict=True)]
        about = "Time from Kafka's timestamp of an input message to the acknowledgement of its outputs"
        yield HistogramMetricFamily(self.NAME, about, buckets=buckets, sum_value=self._sum_s)

    def describe(self) -> Iterable[Metric]:
        """Return the histogram without values."""
        return [HistogramMetricFamily(self.NAME, "")]


class RecentMaximum:
    """The maximum of the last 5 to 10 minutes, for a gauge of values that are observed now and then.

    A maximum since the start would never fall, and the last value alone could change between two scrapes.

    Args:
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._begin_s = clock()
        self._current = self._previous = 0.0

    def observe(self, value: float = 0.0) -> float:
        """Record a value; returns the maximum."""
        passed_s = self._clock() - self._begin_s
        if passed_s >= HALF_S:
            self._previous = self._current if passed_s < 2 * HALF_S else 0.0
            self._current = 0.0
            self._begin_s = self._clock()
        self._current = max(self._current, value)
        return max(self._current, self._previous)


# large class: every metric is a line here
class Metrics:
    """All metrics of one worker.

    Args:
        inputs: the names of its input topics.

    Attributes:
        registry: the registry of the metrics.
        labels: by metric, the names of its labels; the registry has them only for metrics with a value.
    """

    def __init__(self, inputs: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self.labels: dict[str, tuple[str, ...]] = {}
        self._flow()
        self._alerting()
        self._work()
        self._state()
        self._checkpoints()
        self._privacy()
        self._audit()
        self._live()
        self._start_at_zero(inputs)
        ProcessCollector(namespace=PREFIX, registry=self.registry)
        self.registry.register(ThreadTime(self._full_name("thread_cpu_seconds_total", ("thread",))))

    def _full_name(self, name: str, labels: tuple[str, ...]) -> str:
        """Return a metric's name with the prefix, and record its labels."""
        full_name = f"{PREFIX}_{name}"
        self.labels[full_name] = labels
        return full_name

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(self._full_name(name, labels), about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(self._full_name(name, labels), about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(self._full_name(name, labels), about, labels, buckets=buckets, registry=self.registry)

    def _flow(self) -> None:
        """Create the metrics of inputs and outputs."""
        self.freshness = Freshness()
        self.registry.register(self.freshness)
        self.events = self._counter("events_total", "Events accepted at ingest, by type and outcome", "type", "outcome")
        self.mutations = self._counter(
            "mutations_total",
            "Mutations by outcome: events that the owner of their user applied or expired, and facts of other shards; "
            "a share with an author is two mutations, its create and itself",
            "outcome",
        )
        self.repeated = self._counter(
            "repeated_messages_total", "Input messages skipped because the state already has them"
        )
        self.restarts = self._counter(
            "input_restarts_total",
            "Input partitions whose reading did not continue at the committed offset, by reason: made_anew (the topic "
            "was deleted and created again), cut_back (the log is shorter than the offset), other_log (the mutations "
            "topic is another one), all three read from the beginning; unread (messages were deleted unread)",
            "topic",
            "reason",
        )
        self.dead_letters = self._counter(
            "dead_letters_total", "Messages sent to a dead letter topic, by input topic and reason", "topic", "reason"
        )
        self.scores = self._counter("scores_total", "Scores published and acknowledged")
        self.topic_scores = self._counter("topic_scores_total", "Scores by user and topic published")
        self.tombstones = self._counter("tombstones_total", "Scores deleted from the score topic after a forget")
        self.muted = self._counter(
            "muted_outputs_total", "Outputs that are not published again while the state is rebuilt from the log"
        )
        self.facts = self._counter("facts_total", "Facts sent to the owners of other nodes")
        self.fact_bytes = self._counter("fact_bytes_total", "Bytes of the packs with facts")
        self.halos = self._counter("halos_total", "Halo messages sent")
        self.halo_nodes = self._counter("halo_nodes_total", "Nodes in the halo messages sent")
        self.halo_bytes = self._counter("halo_bytes_total", "Bytes of the halo messages sent")
        self.lag = self._gauge("lag_records", "Records of a partition not processed yet", "topic", "partition")
        self.as_of_lag = self._gauge("as_of_lag_seconds", "Machine's clock minus the event-time clock")

    def _alerting(self) -> None:
        """Create the metrics of alerts, their outcomes and their webhook."""
        self.alerts = self._counter("alerts_total", "Alerts published and acknowledged")
        self.alert_outcomes = self._counter(
            "alert_outcomes_total", "Outcomes of alerts, published and acknowledged: confirmed or expired", "outcome"
        )
        self.alert_precision = self._gauge(
            "alert_precision",
            "Confirmed part of the newest outcomes (at most 100 per shard), by rule: shipped, and counter, a plain "
            "decayed counter with the same budget that publishes nothing",
            "rule",
        )
        self.alert_record = self._gauge(
            "alert_record",
            "Confirmed and expired alerts, and missed breakouts, which had no alert within the window before, of this "
            "worker's shards since their states began, by rule as above",
            "rule",
            "outcome",
        )
        self.webhook_alerts = self._counter(
            "webhook_alerts_total", "Alerts that the webhook's address accepted (sent) or that were dropped", "outcome"
        )
        self.webhook_retries = self._counter("webhook_retries_total", "Refused requests that are sent again")
        self.webhook_waiting = self._gauge(
            "webhook_waiting_seconds", "Seconds since the oldest alert in work was first sent and refused; 0: none"
        )
        self.late_shares = self._counter(
            "late_shares_total", "Shares from behind the watermark: they change the graph, not past judgements"
        )
        self.watermark_lag = self._gauge(
            "watermark_lag_seconds",
            "Event time by which an input partition that is not idle is behind the newest event of all",
            "topic",
            "partition",
        )
        self.idle_partitions = self._gauge("idle_partitions", "Input partitions that do not hold back the watermark")
        self.awaited = self._gauge(
            "alert_awaited_seconds",
            "Seconds since a boundary of alerts is passed here and waits for another shard, by that shard; 0: not",
            "shard",
        )

    def _work(self) -> None:
        """Create the metrics of the work per micro-batch."""
        self.batch_mutations = self._histogram("batch_mutations", "Mutations per micro-batch", _SIZES)
        self.batch_seconds = self._histogram("batch_seconds", "Seconds of a micro-batch, by stage", _SECONDS, "stage")
        self.ingest_seconds = self._histogram(
            "ingest_seconds", "Seconds of a poll at ingest, by stage", _SECONDS, "stage"
        )
        self.frontier = self._histogram("frontier_nodes", "Nodes recomputed per micro-batch, by layer", _SIZES, "layer")
        self.edges = self._counter("edges_touched_total", "Window edges read by recomputed nodes")
        self.stale_polls = self._counter("stale_polls_total", "Polls dropped because of a seek after they were fetched")
        self.hub_waiting = self._gauge(
            "hub_waiting_rows", "Readers of hubs that wait to be recomputed by a later micro-batch"
        )
        self.hub_wait = self._histogram(
            "hub_wait_seconds", "Longest wait of the readers of hubs that a micro-batch recomputed", _SECONDS
        )
        self.held_rows = self._counter(
            "tolerance_held_rows_total",
            "First-layer outputs that were computed and held back because they changed by no more than the tolerance",
        )
        self.effect = RecentMaximum()
        self._gauge(
            "tolerance_effect",
            "Largest difference between a score (log reach) and the score without a tolerance, measured on a few users "
            "in the last 5 to 10 minutes; 0.01 is about 1 % of reach",
        ).set_function(self.effect.observe)
        self.rebalance = self._histogram(
            "rebalance_seconds",
            "Seconds from the revocation of partitions until positions are restored",
            (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
        )

    def _state(self) -> None:
        """Create the metrics of the state and of the worker's condition."""
        self.nodes = self._gauge("nodes", "Nodes in memory, by type", "type")
        self.live_users = self._gauge("live_users", "Live users")
        self.tier_users = self._gauge(
            "tier_users", "Live users by tier (GROUNDSWELL_TIERS), every half a minute", "tier"
        )
        self.shares = self._gauge(
            "shares",
            "Distinct shares by outcome: credited; reach (credited within the horizon of the create); waiting (for the "
            "create); beyond_retention; abandoned (the content was removed without a create); expired (events)",
            "outcome",
        )
        self.device_memory = self._gauge(
            "device_memory_bytes", "Bytes of embeddings, projections and windows, by device", "device"
        )
        self.rocksdb = self._gauge("rocksdb_bytes", "Bytes that RocksDB reports, by kind", "kind")
        self.rocksdb_stalled = self._gauge("rocksdb_stalled", "Shards whose writes RocksDB delays or stops")
        self.ready = self._gauge(
            "ready", "1 if the state is loaded and the positions of the assigned partitions are restored, else 0"
        )
        self.model = self._gauge("model_info", "The artifact in use; always 1", "version", "hidden", "heads", "window")
        self.switches = self._counter("model_switches_total", "Switches of a shard to another artifact")

    def _checkpoints(self) -> None:
        """Create the metrics of checkpoints."""
        self.checkpoint_age = self._gauge(
            "checkpoint_age_seconds",
            "Seconds since the shard's newest checkpoint, or since the shard was assigned or empty if that is later",
            "shard",
        )
        self.checkpoint_bytes = self._gauge("checkpoint_bytes", "Bytes of the shard's newest checkpoint", "shard")
        self.checkpoint_seconds = self._gauge(
            "checkpoint_seconds", "Duration of the newest checkpoint, with its upload", "shard"
        )
        self.checkpoint_uploaded = self._counter(
            "checkpoint_uploaded_bytes_total", "Bytes of checkpoints that were uploaded"
        )
        self.checkpoint_failures = self._counter(
            "checkpoint_failures_total", "Checkpoints that could not be made or restored"
        )

    def _privacy(self) -> None:
        """Create the metrics of erasure."""
        self.forget_waiting = self._gauge(
            "forget_waiting_seconds", "Seconds since the oldest forget that is not erased from all files; 0: none"
        )
        self.erasures = self._counter("erasures_total", "Rewrites of a shard's files after a forget")
        self.erase_seconds = self._gauge("erase_seconds", "Duration of the last rewrite")
        self.erase_failures = self._counter(
            "erase_failures_total", "Rewrites that failed, and copies that could not be deleted"
        )

    def _audit(self) -> None:
        """Create the metrics of the audit."""
        self.audit_nodes = self._counter(
            "audit_nodes_total",
            "Random users audited against RocksDB, by outcome: fine, healed (a difference was repaired), failed (a "
            "difference remained, or RocksDB could not be read), skipped (too many neighbours, or the shard was gone)",
            "outcome",
        )
        self.audit_error = self._gauge(
            "audit_error",
            "Largest absolute error of an embedding or score (log reach) in the last 5 to 10 minutes",
        )
        self.audit_seconds = self._counter("audit_seconds_total", "Seconds of work of the audit")

    def _live(self) -> None:
        """Create the metrics of predictions against what posts got."""
        self.live_spearman = self._gauge(
            "live_spearman",
            "Spearman's correlation of predictions made just before posts with the reach of the posts, over the newest "
            "closed posts of all shards, by scorer (model, past_mean, past_sharers) and authors (all, known, new); "
            "absent with fewer than 100 posts",
            "scorer",
            "authors",
        )
        self.live_posts = self._gauge(
            "live_posts",
            "Posts by state: closed (of all shards, behind the live figures), open (of this worker; their horizon has "
            "not passed)",
            "state",
        )
        self.live_calibration = self._gauge(
            "live_calibration_error",
            "Mean absolute log(predicted ÷ observed reach) over tenths of the newest closed posts by prediction; 0.1 "
            "is about 10 %",
        )
        self.trainer_decisions = self._gauge(
            "trainer_decisions",
            "Decisions of the trainer that the models topic holds, at most 200, by action (waiting, refused, accepted, "
            "restored, failed)",
            "action",
        )
        self.trainer_decided = self._gauge(
            "trainer_decided_timestamp_seconds", "When the trainer decided last, in Unix seconds; 0: never"
        )

    def _start_at_zero(self, inputs: Iterable[str]) -> None:
        """Start labelled counters that alerts watch at 0: Prometheus sees no rise of a counter that appears at 1."""
        names = list(inputs)
        for topic, reason in product(names, REASONS):
            self.dead_letters.labels(topic, reason)
        for topic, reason in product(names, RESTARTS):
            self.restarts.labels(topic, reason)
        for outcome in ("applied", "expired", "facts"):
            self.mutations.labels(outcome)
        for outcome in ("sent", "dropped"):
            self.webhook_alerts.labels(outcome)
        for outcome in ("confirmed", "expired"):
            self.alert_outcomes.labels(outcome)
        for outcome in ("fine", "healed", "failed", "skipped"):
            self.audit_nodes.labels(outcome)

    def forget_checkpoint(self, shard: int) -> None:
        """Remove the checkpoint metrics of a shard that is no longer assigned."""
        for gauge in (self.checkpoint_age, self.checkpoint_bytes, self.checkpoint_seconds):
            with suppress(KeyError):
                gauge.remove(str(shard))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
