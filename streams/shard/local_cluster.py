"""All shards of a graph in one process, connected in memory: what Kafka does, without Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from graphstate.storage.row_layouts import NEVER
from graphstate.types import Mutation
from streams.messages.halos import Halo, encode
from streams.messages.packs.mutation_packs import Record
from streams.messages.packs.source_progress import SourceProgress
from streams.shard.routing import concerned
from streams.shard.shard import Outcome, Shard

Scores = tuple[list[str], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


class Cluster:
    """Shards that exchange facts and halos until none are left to deliver.

    Args:
        shards: All shards of the graph, by number.
        delay_us: How far the watermark stays behind the newest event (µs), for events that are not in order of time.

    Attributes:
        carried: Messages, facts or nodes, and bytes as on Kafka, that shards sent to each other.
    """

    def __init__(self, shards: list[Shard], delay_us: int = 0) -> None:
        self.shards = shards
        self._delay_us = delay_us
        self.carried = dict.fromkeys(
            ("fact_messages", "facts", "fact_bytes", "halo_messages", "halo_nodes", "halo_bytes"), 0
        )
        self._clock = NEVER
        self._records: list[list[Record]] = [[] for _ in shards]
        self._halos: list[list[Halo]] = [[] for _ in shards]
        self._ends = [shard.next_offset for shard in shards]
        for fencing_token, shard in enumerate(shards):
            self._send(shard.mirrors.announce(fencing_token))

    def feed(self, mutations: Iterable[Mutation], progress: SourceProgress | None = None) -> None:
        """Route one batch of events: one record for each shard, with the events that concern it.

        Args:
            mutations: Events.
            progress: What is read of the input partitions, these events included; None if all events are of one
                source, in order of time.
        """
        routed: list[list[Mutation]] = [[] for _ in self.shards]
        for mutation in mutations:
            for shard in concerned(mutation, len(self.shards)):
                routed[shard].append(mutation)
            self._clock = max(self._clock, mutation.time)
        if progress is None and self._clock != NEVER:
            progress = SourceProgress.of_file(self._clock - self._delay_us)
        for shard, batch in enumerate(routed):
            self._append(shard, batch, progress)

    def end(self) -> None:
        """Note that no event follows from the only source, so that the watermark rises to the newest event."""
        if self._clock != NEVER:
            self.feed([], SourceProgress.of_file(self._clock, ended=True))

    def _append(self, shard: int, mutations: list[Mutation], progress: SourceProgress | None = None) -> None:
        # A single shard advances its clock by the events that it reads.
        clock = self._clock if len(self.shards) > 1 else NEVER
        self._records[shard].append(Record.of(self._ends[shard], mutations, clock, progress=progress))
        self._ends[shard] += 1

    def _send(self, halos: Iterable[tuple[int, Halo]]) -> None:
        for shard, halo in halos:
            self._halos[shard].append(halo)
            self.carried["halo_messages"] += 1
            self.carried["halo_nodes"] += len(halo.nodes)
            self.carried["halo_bytes"] += len(encode(halo))

    def round(self, shard: int, on_step: Callable[[Outcome], None] | None = None) -> bool:
        """Run and commit one step of a shard with all that was sent to it.

        Args:
            shard: Number of the shard.
            on_step: Called with the outcome.

        Returns:
            Whether there was anything to process, rows queued in the shard included.
        """
        records, halos = self._records[shard], self._halos[shard]
        if not records and not halos and not self.shards[shard].staleness.hub_queue.waiting:
            return False
        self._records[shard], self._halos[shard] = [], []
        outcome = self.shards[shard].process(records, halos)
        self.shards[shard].commit(self._ends[shard])
        for outbound in outcome.outbound_facts:
            self._append(outbound.shard, outbound.facts)
            self.carried["fact_messages"] += 1
            self.carried["facts"] += len(outbound.facts)
            self.carried["fact_bytes"] += len(encode(outbound.facts))
        self._send(outcome.halos)
        if on_step is not None:
            on_step(outcome)
        return True

    def drain(self, on_step: Callable[[Outcome], None] | None = None) -> None:
        """Run rounds of all shards until nothing is left to process."""
        while True:
            stepped = [self.round(shard, on_step) for shard in range(len(self.shards))]
            if not any(stepped):
                return

    # Reading

    def exchange_sketches(self) -> None:
        """Merge the newest counts of every shard into all other shards' percentiles."""
        for number, shard in enumerate(self.shards):
            sketch = shard.publisher.percentiles.sketch(always=True)
            for other in self.shards:
                if other is not shard and sketch is not None:
                    other.publisher.percentiles.merge(number, sketch)

    @property
    def users(self) -> int:
        """Number of live users."""
        return sum(shard.users for shard in self.shards)

    def scores(self) -> Scores:
        """Return the columns of all live users' scores, sorted by id: id, reach, percentile, as-of time (µs)."""
        self.exchange_sketches()
        parts = [shard.reads.scores() for shard in self.shards]
        names = [name for part in parts for name in part[0]]
        order = sorted(range(len(names)), key=names.__getitem__)
        reach, percentile, as_of = (np.concatenate([part[column] for part in parts])[order] for column in (1, 2, 3))
        return [names[index] for index in order], reach, percentile, as_of

    def close(self) -> None:
        """Close all shards."""
        for shard in self.shards:
            shard.close()
