"""One shard that reads the events of an evaluation, as in production, up to the moments that are evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from graphstate.types import Mutation
from model.artifact import Artifact
from streams.messages.packs.source_progress import SourceProgress
from streams.offline.replay import BATCH, cluster
from streams.shard.alerts.alert_rule import AlertRule
from streams.shard.graph_view import graph_spec
from streams.shard.local_cluster import Cluster
from streams.shard.shard import Outcome, Shard


class ShardReplay:
    """Events in order of time, fed to a shard step by step.

    Attributes:
        done: Number of events that the shard has read.
    """

    def __init__(
        self, cluster: Cluster, events: Sequence[Mutation], on_outcome: Callable[[Outcome], None] | None = None
    ) -> None:
        self._cluster, self._events, self._on_outcome = cluster, events, on_outcome
        self.done = 0

    @property
    def shard(self) -> Shard:
        """The only shard of the replay."""
        return self._cluster.shards[0]

    def feed(self, end: int, on_batch: Callable[[int], None] | None = None) -> None:
        """Feed the events up to number `end` (exclusive); `on_batch` receives the number of events read so far."""
        while self.done < end:
            batch_end = min(self.done + BATCH, end)
            self._cluster.feed(self._events[self.done : batch_end])
            self._cluster.drain(self._on_outcome)
            self.done = batch_end
            if on_batch is not None:
                on_batch(self.done)

    def advance(self, time: int) -> None:
        """Judge alerts at all boundaries up to a time (µs); all events before it must be fed."""
        self._cluster.feed([], SourceProgress.of_file(time))
        self._cluster.drain(self._on_outcome)

    def feed_before(self, time: int, on_batch: Callable[[int], None] | None = None) -> None:
        """Feed the events before a time (µs)."""
        end = self.done
        while end < len(self._events) and self._events[end].time < time:
            end += 1
        self.feed(end, on_batch)


@contextmanager
def open_replay(
    artifact: Artifact,
    events: Sequence[Mutation],
    on_outcome: Callable[[Outcome], None] | None = None,
    rule: AlertRule | None = None,
) -> Iterator[ShardReplay]:
    """Open a shard with an empty state in a temporary folder, removed at the end.

    Args:
        artifact: Artifact that the shard serves.
        events: Events in order of time.
        on_outcome: Receives the outcome of every step.
        rule: Alert rule; None for the default.
    """
    spec = graph_spec(artifact.config, retention_s=0, lateness_s=0)
    with (
        TemporaryDirectory(prefix="groundswell-evaluate-") as folder,
        cluster(artifact, spec, Path(folder), 1, rule=rule) as single_shard,
    ):
        yield ShardReplay(single_shard, events, on_outcome)
