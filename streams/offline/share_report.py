"""What became of the shares of a replay or a file, in numbers and in lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphstate.apply.share_outcomes import OUTCOMES
from graphstate.types import Kind, Mutation, source_hash

if TYPE_CHECKING:
    from streams.shard.local_cluster import Cluster

_SHARE, _CREATE = int(Kind.SHARE), int(Kind.CREATE)
_SECOND = 1_000_000
CONTENTS = 1_000_000
"""Contents of a file of which `FileShares` remembers when they were created."""


@dataclass(frozen=True)
class ShareTally:
    """The shares of a replay at its end; distinct ones, but for `given` and `expired`, which count events.

    reach: of the credited, those within the horizon. too_old: the create of the content expired, or left with the
    retention. waiting: no create came. repeated: repeats, and what unshare, delete or forget took back.
    worker_leaves_out: of the credited, those that a worker's retention would not count (if the replay has none).
    """

    given: int = 0
    credited: int = 0
    reach: int = 0
    waiting: int = 0
    beyond_retention: int = 0
    too_old: int = 0
    expired: int = 0
    repeated: int = 0
    worker_leaves_out: int = 0

    def fields(self) -> dict[str, int]:
        """The counts as `replay --json` names them."""
        return {
            "shares": self.given,
            "shares_credited": self.credited,
            "shares_beyond_horizon": self.credited - self.reach,
            "shares_beyond_retention": self.beyond_retention,
            "shares_of_old_contents": self.too_old,
            "shares_waiting": self.waiting,
            "shares_expired": self.expired,
            "shares_repeated": self.repeated,
        }

    def lines(self, retention_s: int, lateness_s: int, horizon_s: int, worker_retention_s: int) -> Iterator[str]:
        """State which shares did not count, and why."""
        of = f"of {self.given:,} shares"
        if old := self.too_old + self.beyond_retention:
            yield f"{old:,} {of} did not count: their contents are older than the retention of {span(retention_s)}"
        if self.expired:
            kept = span(retention_s + lateness_s)
            yield f"{self.expired:,} {of} did not count: they came more than retention and lateness ({kept}) too late"
        if self.waiting:
            yield (
                f"{self.waiting:,} {of} are not credited: no create of their content was read; "
                "give its file too, or let shares carry author and created"
            )
        if beyond := self.credited - self.reach:
            yield (
                f"{beyond:,} {of} came more than the horizon of {span(horizon_s)} after the create: "
                "they are credited, and not part of reach"
            )
        if self.repeated:
            yield f"{self.repeated:,} {of} are repeats of the same user and content, or were taken back"
        if retention_s:
            yield f"retention: {span(retention_s)}"
        elif worker_retention_s:
            rest = (
                f"{self.worker_leaves_out:,} {of} would not count there" if self.worker_leaves_out else "the same here"
            )
            yield (
                f"retention: everything is kept; a worker keeps {span(worker_retention_s)} (GROUNDSWELL_RETENTION_S, "
                f"here --retention-s {worker_retention_s}): {rest}"
            )
        else:
            yield "retention: everything is kept"


def tally(cluster: Cluster, given: int, worker_retention_s: int = 0) -> ShareTally:
    """Count the shares of a cluster that was drained."""
    counters = [shard.graph.shares for shard in cluster.shards]
    counts = [one.count() for one in counters]
    found = {outcome: sum(one[outcome] for one in counts) for outcome in OUTCOMES}
    too_old = sum(one.count_too_old() for one in counters)
    waiting = found["waiting"] + found["abandoned"] + sum(one.too_old for one in counters) - too_old
    left_out = 0
    if worker_retention_s and not cluster.shards[0].graph.spec.retention_s:
        limit_us = worker_retention_s * _SECOND
        left_out = sum(shard.graph.shares.count_beyond(shard.graph.store, limit_us) for shard in cluster.shards)
    rest = given - found["credited"] - found["beyond_retention"] - too_old - waiting - found["expired"]
    return ShareTally(
        given, found["credited"], found["reach"], waiting, found["beyond_retention"], too_old, found["expired"],
        max(0, rest), left_out,
    )  # fmt: skip


class FileShares:
    """Counts, as events pass, the shares whose content's create did not pass, or was too long ago.

    Bounded: it remembers when up to `limit` contents were created, or how many shares wait for them. Those of further
    contents count as `untracked`. beyond_retention: of shares behind their create in the file.
    """

    def __init__(self, retention_s: int = 0, limit: int = CONTENTS) -> None:
        self._retention_us = retention_s * _SECOND
        self._limit = limit
        self._created: dict[int, int] = {}
        self._waiting: dict[int, int] = {}
        self.shares = self.beyond_retention = self.untracked = 0

    def take(self, mutations: Iterable[Mutation]) -> None:
        """Count these."""
        for kind, time, _, content, _, _ in mutations:
            if kind == _SHARE:
                self._share(source_hash(content), time)
            elif kind == _CREATE:
                hashed = source_hash(content)
                known = self._created.get(hashed)
                if known is not None:
                    self._created[hashed] = min(known, time)
                elif self._waiting.pop(hashed, 0) or self._has_room():
                    self._created[hashed] = time

    def _share(self, hashed: int, time: int) -> None:
        self.shares += 1
        created = self._created.get(hashed)
        if created is not None:
            self.beyond_retention += bool(self._retention_us) and time > created + self._retention_us
        elif hashed in self._waiting or self._has_room():
            self._waiting[hashed] = self._waiting.get(hashed, 0) + 1
        else:
            self.untracked += 1

    def _has_room(self) -> bool:
        return len(self._created) + len(self._waiting) < self._limit

    @property
    def waiting(self) -> int:
        """Shares whose content's create has not passed."""
        return sum(self._waiting.values())

    def fields(self) -> dict[str, int]:
        """The counts as `produce --json` names them."""
        return {
            "shares": self.shares,
            "shares_without_create": self.waiting,
            "shares_beyond_retention": self.beyond_retention,
            "shares_untracked": self.untracked,
        }

    def lines(self, retention_s: int) -> Iterator[str]:
        """State which shares of the file cannot be credited by the file alone."""
        of = f"of {self.shares:,} shares"
        if waiting := self.waiting:
            yield (
                f"{waiting:,} {of} name a content whose create is not in the file: they wait until it comes, "
                "or let them carry author and created"
            )
        if self.beyond_retention:
            yield (
                f"{self.beyond_retention:,} {of} will not count: their contents are older than the retention of "
                f"{span(retention_s)} (GROUNDSWELL_RETENTION_S)"
            )
        if self.untracked:
            yield f"{self.untracked:,} {of} were not looked at: more than {self._limit:,} contents"


def span(seconds: int) -> str:
    """A duration for people."""
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size:,} {name}{'s' if seconds != size else ''}"
    return "0 seconds"
