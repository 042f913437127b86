"""Live degree counts or PageRank of a follow stream in Pathway; runs in the environment of `tests.bench.opponent`.

It reads `base.npy` and `updates.npy` (rows of source, target, and 1 for a follow or −1 for an unfollow) from a folder,
feeds the base at once and the updates in micro-batches, two of which are in flight. It prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pathway as pw

DEGREES, PAGERANK = "degrees", "pagerank"
STEPS = 5
"""Rounds of PageRank: Pathway's default."""
IN_FLIGHT = 2
"""Micro-batches in flight."""
STALL_S = 60.0
"""A time without a changed result is not reported."""


class Change(pw.Schema):
    """A follow (1) or an unfollow (−1): degrees are sums, so nothing needs to be removed."""

    target: int
    sign: int


class Follow(pw.Schema):
    """A live follow."""

    u: int = pw.column_definition(primary_key=True)
    v: int = pw.column_definition(primary_key=True)


class Stream(pw.io.python.ConnectorSubject):
    """Feeds the events.

    ends: when the results of each time were complete. begin_s: when those of the base were, which starts the
    measurement. fed: micro-batches fed since the base.
    """

    def __init__(self, folder: Path, batch: int, slice_s: float) -> None:
        super().__init__()
        self._folder, self._batch, self._slice_s = folder, batch, slice_s
        self.progress, self.base_complete = threading.Condition(), threading.Event()
        self.ends: list[float] = []
        self.begin_s = 0.0
        self.fed = 0

    def hand_over(self, rows: list[list[int]]) -> None:
        """Hand over events."""
        raise NotImplementedError

    def _feed(self, rows: list[list[int]]) -> None:
        self.hand_over(rows)
        self.commit()

    def run(self) -> None:
        """Feed the base, then micro-batches until the time is over."""
        updates = np.load(self._folder / "updates.npy").tolist()
        self._feed(np.load(self._folder / "base.npy").tolist())
        end = float("inf")
        while self.fed * self._batch < len(updates) and perf_counter() < end:
            # A time is complete when the next one is fed, so one micro-batch is always in flight; a second one keeps
            # the engine busy while Python feeds.
            self._feed(updates[self.fed * self._batch : (self.fed + 1) * self._batch])
            self.fed += 1
            if self.fed == IN_FLIGHT:
                self.base_complete.wait()
                end = self.begin_s + self._slice_s
            with self.progress:
                # The base ends a time, too.
                self.progress.wait_for(lambda: len(self.ends) + IN_FLIGHT > self.fed, STALL_S)

    def complete(self) -> None:
        """Note that the results of a time are complete."""
        with self.progress:
            self.ends.append(perf_counter())
            self.progress.notify_all()


class Changes(Stream):
    """Follows and unfollows as rows that are only added: without removals Pathway keeps no rows."""

    def hand_over(self, rows: list[list[int]]) -> None:
        """Add a row for each event."""
        for _, target, sign in rows:
            self.next(target=target, sign=sign)


class Follows(Stream):
    """Live follows."""

    def hand_over(self, rows: list[list[int]]) -> None:
        """Add or delete the row of each follow."""
        for source, target, sign in rows:
            if sign > 0:
                self.next(u=source, v=target)
            else:
                self.delete(u=source, v=target)


def results(what: str, stream: Stream) -> Any:
    """The table of results by target; events are handed on only by `commit`."""
    if what == DEGREES:
        changes = pw.io.python.read(stream, schema=Change, autocommit_duration_ms=None)
        return changes.groupby(changes.target).reduce(changes.target, value=pw.reducers.sum(changes.sign))
    follows = pw.io.python.read(stream, schema=Follow, autocommit_duration_ms=None)
    edges = follows.select(u=follows.pointer_from(follows.u), v=follows.pointer_from(follows.v))
    ranks = pw.stdlib.graphs.pagerank.pagerank(edges, steps=STEPS)
    return ranks.select(value=ranks.rank)


def main(what: str, folder: Path, batch: int, slice_s: float) -> None:
    """Run and print the seconds of all micro-batches, their number, the number of results, and their sum."""
    stream = (Changes if what == DEGREES else Follows)(folder, batch, slice_s)
    table = results(what, stream)
    # Pathway reports the end of a time only where a row changed: the sum of squares does with nearly every event.
    total = table.reduce(
        n=pw.reducers.count(), sum=pw.reducers.sum(table.value), squares=pw.reducers.sum(table.value * table.value)
    )
    last: dict[str, int] = {}

    def keep(key: Any, row: dict[str, int], time: int, is_addition: bool) -> None:
        if is_addition:
            last.update(row)
            if not stream.base_complete.is_set():
                stream.begin_s = perf_counter()
                stream.base_complete.set()

    # One row of all results reaches Python: a call for each changed result would take most of the time.
    pw.io.subscribe(total, on_change=keep, on_time_end=lambda _: stream.complete())
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    seconds = perf_counter() - stream.begin_s
    found = {"version": pw.__version__, "seconds": seconds, "fed": stream.fed, **last}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
