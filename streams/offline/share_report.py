"""Outcomes of the shares of a replay or a file, as counts and as text."""

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
"""Maximum number of contents that `FileShares` tracks."""


@dataclass(frozen=True)
class ShareTally:
    """Shares at the end of a replay. `given` and `expired` count events, the others distinct shares.

    Attributes:
        given: Number of share events.
        credited: Shares that count and whose content has a create.
        reach: Credited shares within the horizon.
        waiting: Shares of contents without a create.
        beyond_retention: Shares that came later after the create than the retention.
        too_old: Shares of contents whose create expired, or that left with the retention.
        expired: Share events that came later than retention and lateness.
        repeated: Repeated shares, and shares that an unshare, delete or forget took back.
        worker_leaves_out: Credited shares that the retention of a worker would not count, if the replay has none.
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
        """Return the counts by their names in `replay --json`."""
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
        """Yield one line per cause for which shares did not count.

        Args:
            retention_s: Retention of the replay; 0 if everything is kept.
            lateness_s: Lateness of the replay.
            horizon_s: Time within which a share counts as reach.
            worker_retention_s: Retention that a worker would have.
        """
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
    """Count the shares of a drained cluster.

    Args:
        cluster: Cluster whose shards hold the state at the end of the replay.
        given: Number of share events that it was fed.
        worker_retention_s: As for `ShareTally.worker_leaves_out`; 0: do not count these.
    """
    counters = [shard.graph.shares for shard in cluster.shards]
    counts = [counter.count() for counter in counters]
    totals = {outcome: sum(by_outcome[outcome] for by_outcome in counts) for outcome in OUTCOMES}
    too_old = sum(counter.count_too_old() for counter in counters)
    waiting = totals["waiting"] + totals["abandoned"] + sum(counter.too_old for counter in counters) - too_old
    left_out = 0
    if worker_retention_s and not cluster.shards[0].graph.spec.retention_s:
        limit_us = worker_retention_s * _SECOND
        left_out = sum(shard.graph.shares.count_beyond(shard.graph.store, limit_us) for shard in cluster.shards)
    counted = totals["credited"] + totals["beyond_retention"] + too_old + waiting + totals["expired"]
    return ShareTally(
        given=given,
        credited=totals["credited"],
        reach=totals["reach"],
        waiting=waiting,
        beyond_retention=totals["beyond_retention"],
        too_old=too_old,
        expired=totals["expired"],
        repeated=max(0, given - counted),
        worker_leaves_out=left_out,
    )


class FileShares:
    """Counts, while events of a file pass, the shares whose content has no create so far, or an old one.

    Memory is bounded: for up to `limit` contents it holds the time of the create, or the number of shares before it.

    Args:
        retention_s: Retention of the workers; 0 if they keep everything.
        limit: Maximum number of contents that are tracked.

    Attributes:
        shares: Number of shares.
        beyond_retention: Number of shares after their create in the file that came later than the retention.
        untracked: Number of shares of contents above the limit.
    """

    def __init__(self, retention_s: int = 0, limit: int = CONTENTS) -> None:
        self._retention_us = retention_s * _SECOND
        self._limit = limit
        self._created: dict[int, int] = {}
        self._waiting: dict[int, int] = {}
        self.shares = self.beyond_retention = self.untracked = 0

    def count(self, mutations: Iterable[Mutation]) -> None:
        """Count the shares among these events."""
        for kind, time, _, content, _, _ in mutations:
            if kind == _SHARE:
                self._share(source_hash(content), time)
            elif kind == _CREATE:
                hashed = source_hash(content)
                created = self._created.get(hashed)
                if created is not None:
                    self._created[hashed] = min(created, time)
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
        """Number of shares whose content has no create so far."""
        return sum(self._waiting.values())

    def fields(self) -> dict[str, int]:
        """Return the counts by their names in `produce --json`."""
        return {
            "shares": self.shares,
            "shares_without_create": self.waiting,
            "shares_beyond_retention": self.beyond_retention,
            "shares_untracked": self.untracked,
        }

    def lines(self, retention_s: int) -> Iterator[str]:
        """Yield one line per cause for which shares cannot be credited from the file alone."""
        of = f"of {self.shares:,} shares"
        if waiting := self.waiting:
            yield (
                f"{waiting:,} {of} name a content whose create is not in the file: they wait until it comes; "
                "produce its file too, or let shares carry author and created"
            )
        if self.beyond_retention:
            yield (
                f"{self.beyond_retention:,} {of} will not count: their contents are older than the retention of "
                f"{span(retention_s)} (GROUNDSWELL_RETENTION_S)"
            )
        if self.untracked:
            yield f"{self.untracked:,} {of} were not checked: the file has more than {self._limit:,} contents"


def span(seconds: int) -> str:
    """Return a duration as text in the largest unit that divides it, such as `30 days`."""
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size:,} {name}{'s' if seconds != size else ''}"
    return "0 seconds"
