"""The faults of a chaos run and their times, from the seed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

SESSION_S = 6.0
"""Session timeout, after which Kafka assigns a silent worker's partitions to others."""

KILL, TERM, HANG, SLOW, JOIN = "kill -9", "SIGTERM", "hangs", "slow", "joins"
RESTART, CRASH = "broker restarts", "broker killed"
REFUSE, SILENT, CUT = "port gone", "network silent", "one cut off"
DISK, CLOCK = "disk full", "clock jumps"

LASTS_S: dict[str, tuple[float, float]] = {
    KILL: (0.2, 3.0),
    HANG: (SESSION_S + 2, SESSION_S + 5),
    CUT: (SESSION_S + 2, SESSION_S + 5),
    TERM: (0.0, 2.0),
    SLOW: (4.0, 8.0),
    JOIN: (10.0, 15.0),
    RESTART: (0.0, 2.0),
    CRASH: (0.0, 3.0),
    REFUSE: (2.0, 8.0),
    SILENT: (2.0, 8.0),
    DISK: (4.0, 8.0),
    CLOCK: (6.0, 10.0),
}
"""Every fault with its least and longest duration."""
KINDS = tuple(LASTS_S)
OF_ALL = {RESTART, CRASH, REFUSE, SILENT}
"""Faults of the broker, which affect every worker."""
OF_OWNERS = {KILL, HANG, CUT, DISK}
"""Faults for a worker that owns shards: with one shard and three workers, two own none."""


@dataclass(frozen=True)
class Fault:
    """One fault: time after the start of the stream, kind, duration, and worker (−1: all)."""

    at_s: float
    kind: str
    lasts_s: float
    worker: int = -1

    def __str__(self) -> str:
        target = "" if self.worker < 0 else f" (worker {self.worker})"
        return f"{self.at_s:.1f} s: {self.kind}{target} for {self.lasts_s:.1f} s"


def schedule(seed: int, faults: int, seconds: float, workers: int, kinds: Iterable[str] = KINDS) -> list[Fault]:
    """Make the faults of a seed, one in each of `faults` equal parts of the time; they may overlap.

    Successive seeds use the kinds in turn, so that a few seeds cover all of them.
    """
    rng = random.Random(f"schedule {seed}")
    every = list(kinds)
    chosen = [every[(seed * faults + number) % len(every)] for number in range(faults)]
    rng.shuffle(chosen)
    part_s = seconds / faults
    found = []
    for number, kind in enumerate(chosen):
        at_s = round(part_s * (number + rng.uniform(0.1, 0.8)), 2)
        worker = -1 if kind in OF_ALL else workers if kind == JOIN else rng.randrange(workers)
        found.append(Fault(at_s, kind, round(rng.uniform(*LASTS_S[kind]), 2), worker))
    return found
