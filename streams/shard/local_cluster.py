"""All shards of a graph in one process, wired together in memory: what Kafka does, without Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from graphstate.storage.row_layouts import NEVER
from graphstate.types import Mutation
from streams.messages.halos import Halo, encode
from streams.messages.mutation_packs import Record
from streams.shard.routing import concerned
from streams.shard.shard import Outcome, Shard

Scores = tuple[list[str], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


class Cluster:
    """Shards that tell each other facts and halos until nothing is left to say.

    carried: messages, facts or nodes, and bytes as on Kafka, that shards sent each other.
    """

    def __init__(self, shards: list[Shard]) -> None:
        self.shards = shards
        self.carried = dict.fromkeys(
            ("fact_messages", "facts", "fact_bytes", "halo_messages", "halo_nodes", "halo_bytes"), 0
        )
        self._clock = NEVER
        self._records: list[list[Record]] = [[] for _ in shards]
        self._halos: list[list[Halo]] = [[] for _ in shards]
        self._ends = [shard.next_offset for shard in shards]
        for token, shard in enumerate(shards):
            self._send(shard.mirrors.hello(token))

    def feed(self, mutations: Iterable[Mutation]) -> None:
        """Route one batch of events, a record for each shard that it concerns."""
        routed: list[list[Mutation]] = [[] for _ in self.shards]
        for mutation in mutations:
            for shard in concerned(mutation, len(self.shards)):
                routed[shard].append(mutation)
            self._clock = max(self._clock, mutation.time)
        for shard, some in enumerate(routed):
            self._append(shard, some)

    def _append(self, shard: int, mutations: list[Mutation]) -> None:
        # One shard alone moves its clock by what it reads.
        clock = self._clock if len(self.shards) > 1 else NEVER
        self._records[shard].append(Record(self._ends[shard], mutations, clock))
        self._ends[shard] += 1

    def _send(self, halos: Iterable[tuple[int, Halo]]) -> None:
        for shard, halo in halos:
            self._halos[shard].append(halo)
            self.carried["halo_messages"] += 1
            self.carried["halo_nodes"] += len(halo.nodes)
            self.carried["halo_bytes"] += len(encode(halo))

    def round(self, shard: int, on_step: Callable[[Outcome], None] | None = None) -> bool:
        """One step of a shard with all that waits for it, or in it; False if nothing does."""
        records, halos = self._records[shard], self._halos[shard]
        if not records and not halos and not self.shards[shard].spread.waiting:
            return False
        self._records[shard], self._halos[shard] = [], []
        outcome = self.shards[shard].take(records, halos)
        self.shards[shard].commit(self._ends[shard])
        for told in outcome.told:
            self._append(told.shard, told.facts)
            self.carried["fact_messages"] += 1
            self.carried["facts"] += len(told.facts)
            self.carried["fact_bytes"] += len(encode(told.facts))
        self._send(outcome.halos)
        if on_step is not None:
            on_step(outcome)
        return True

    def drain(self, on_step: Callable[[Outcome], None] | None = None) -> None:
        """Step every shard until nothing waits any more."""
        while True:
            stepped = [self.round(shard, on_step) for shard in range(len(self.shards))]
            if not any(stepped):
                return

    # Reading

    def settle_ranks(self) -> None:
        """Let every shard rank by the newest counts of all."""
        for shard, one in enumerate(self.shards):
            sketch = one.ranking.sketch(always=True)
            for other in self.shards:
                if other is not one and sketch is not None:
                    other.ranking.merge(shard, sketch)

    @property
    def users(self) -> int:
        """How many live users there are."""
        return sum(shard.users for shard in self.shards)

    def scores(self) -> Scores:
        """Every live user's id, reach, percentile and as-of time (µs), by id."""
        self.settle_ranks()
        parts = [shard.scores() for shard in self.shards]
        names = [name for part in parts for name in part[0]]
        order = sorted(range(len(names)), key=names.__getitem__)
        reach, percentile = (np.concatenate([part[column] for part in parts])[order] for column in (1, 2))
        return [names[at] for at in order], reach, percentile, np.concatenate([part[3] for part in parts])[order]

    def close(self) -> None:
        """Close every shard."""
        for shard in self.shards:
            shard.close()
