"""Live degree counts or PageRank of a follow stream in Pathway; runs in the environment of `tests.bench.opponent`.

It reads `base.npy` and `updates.npy` (rows of source, target, and 1 for a follow or −1 for an unfollow) from a folder,
feeds the base at once and the updates in micro-batches: the next one when the results of the last are complete. It
prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pathway as pw

DEGREES, PAGERANK = "degrees", "pagerank"
STEPS = 5
"""Rounds of PageRank: Pathway's default."""


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

    complete: set when the results of everything handed over are complete. base_s: seconds of the base. seconds: of each
    micro-batch, in all and from the hand-over of its last event.
    """

    def __init__(self, what: str, folder: Path, batch: int, slice_s: float) -> None:
        super().__init__()
        self._what, self._folder, self._batch, self._slice_s = what, folder, batch, slice_s
        self.complete = threading.Event()
        self.base_s = 0.0
        self.seconds: list[tuple[float, float]] = []

    def _feed(self, rows: list[list[int]]) -> tuple[float, float]:
        begin = time.perf_counter()
        if self._what == DEGREES:
            for _, target, sign in rows:
                self.next(target=target, sign=sign)
        else:
            for source, target, sign in rows:
                if sign > 0:
                    self.next(u=source, v=target)
                else:
                    self.delete(u=source, v=target)
        self.commit()
        handed_over = time.perf_counter()
        self.complete.wait()
        self.complete.clear()
        end = time.perf_counter()
        return end - begin, end - handed_over

    def run(self) -> None:
        """Feed the base, then micro-batches until the time is over."""
        self.base_s, _ = self._feed(np.load(self._folder / "base.npy").tolist())
        updates, at = np.load(self._folder / "updates.npy").tolist(), 0
        end = time.perf_counter() + self._slice_s
        while at + self._batch <= len(updates) and (time.perf_counter() < end or not self.seconds):
            self.seconds.append(self._feed(updates[at : at + self._batch]))
            at += self._batch


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
    """Run and print seconds, the number of results, and their sum."""
    stream = Stream(what, folder, batch, slice_s)
    table = results(what, stream)
    total = table.reduce(n=pw.reducers.count(), sum=pw.reducers.sum(table.value))
    last: dict[str, int] = {}

    def keep(key: Any, row: dict[str, int], time: int, is_addition: bool) -> None:
        if is_addition:
            last.update(row)

    # One row of all results reaches Python: a call for each changed result would take most of the time.
    pw.io.subscribe(total, on_change=keep, on_time_end=lambda _: stream.complete.set())
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    found = {"version": pw.__version__, "base_s": stream.base_s, "seconds": stream.seconds, **last}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
