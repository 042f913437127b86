"""Every metric of the analyst, in a registry of its own; names begin with `groundswell_analyst_`."""

from __future__ import annotations

from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

PREFIX = "groundswell_analyst"
Metric = TypeVar("Metric", Counter, Gauge)
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


class AnalystMetrics:
    """All metrics of one analyst.

    Attributes:
        registry: the registry of the metrics.
        labels: by metric, the names of its labels.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.labels: dict[str, tuple[str, ...]] = {}
        self.mutations = Counter(
            f"{PREFIX}_mutations_total",
            "Events and facts read from the log",
            registry=self.registry,
        )
        self.repeated = Counter(
            f"{PREFIX}_repeated_messages_total", "Input messages skipped because they were read", registry=self.registry
        )
        self.published = self._labelled(Counter, "published_total", "Messages published and acknowledged", "topic")
        self.tombstones = self._labelled(Counter, "tombstones_total", "Values deleted from a topic", "topic")
        self.edges = self._labelled(Gauge, "edges", "Live edges between users", "relation")
        self.lag = self._labelled(Gauge, "lag_records", "Records of the log not read yet", "partition")
        self.error_bound = self._labelled(
            Gauge, "error_bound", "Bound of the L1 error of PageRank, as it is kept between passes", "relation"
        )
        name = "pass_seconds"
        self.labels[f"{PREFIX}_{name}"] = ("stage",)
        self.pass_seconds = Histogram(
            f"{PREFIX}_{name}",
            "Seconds of a pass over the graph, by stage; publication too",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.interval = self._gauge(
            "interval_seconds", "Seconds between two passes: longer than the setting if a pass takes a fifth of that"
        )
        self.users = self._gauge("users", "Live users")
        self.memory = self._gauge("memory_bytes", "Bytes of the graph: arrays and ids")
        self.user_bytes = self._gauge("user_bytes", "Bytes of the graph per user")
        self.edge_bytes = self._gauge("edge_bytes", "Bytes of the graph per edge between users, registers included")
        self.expired = self._gauge("expired_events", "Events that arrived after the lateness")
        self.suspected = self._gauge("suspected_bots", "Live users whose quality as a follower is below the threshold")
        self.quality_followers = self._gauge("quality_followers", "Follows that count, each by the follower's quality")
        self.as_of_lag = self._gauge("as_of_lag_seconds", "Machine's clock minus the event time of the last pass")
        self.ready = self._gauge("ready", "1 if the graph is rebuilt from the log, else 0")
        ProcessCollector(namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", about, registry=self.registry)

    def _labelled(self, kind: type[Metric], name: str, about: str, label: str) -> Metric:
        self.labels[f"{PREFIX}_{name}"] = (label,)
        return kind(f"{PREFIX}_{name}", about, (label,), registry=self.registry)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
