"""A worker over a long time: `python -m tests.load.soak` (make soak). Checks memory, open files, lag and freshness.

The stream is the demo's society; its days pass thousands of times faster than real ones, so that contents are created
and evicted all the time: with a retention of days the state is as large after a minute as after an hour, and growth
is a leak.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tests.load.rig import Rig, Sample, end_well, p_ms, report, result, spread
from tests.support import tidy

FOLDER = tidy.ROOT / "build" / "soak"
EVERY_S = 10.0
RETENTION_S, LATENESS_S = 3 * 86_400, 86_400
WARM_EVENTS = 150_000
"""Warm-up: some weeks of the society at full speed, so that its rates are steady when measuring starts."""
BROKER = "broker"


@dataclass(frozen=True)
class Bounds:
    """Limits of a soak. memory: (max − min) / mean over the last half. files: growth over the last half.

    lag_s: as seconds of events at the given rate.
    """

    memory: float = 0.03
    files: float = 0.05
    lag_s: float = 10.0
    p99_ms: float = 2_000.0


def verdict(samples: Sequence[Sample], rate: float, bounds: Bounds, errors: Sequence[str]) -> dict[str, Any]:
    """The figures of a soak; `out_of_bounds` lists those above their limit."""
    half = samples[len(samples) // 2 :]
    third, last = half[: len(half) // 2], half[len(half) // 2 :]
    names = list(samples[0].rss_mb)
    memory = {name: round(spread(sample.rss_mb[name] for sample in half), 4) for name in names}
    growth = {name: _growth([s.files[name] for s in third], [s.files[name] for s in last]) for name in names}
    lag_max = max(sample.lag_records for sample in samples)
    p99_ms = p_ms(samples[-1], samples[0], 0.99)
    wrong = [
        f"memory of {name}: {value:.1%}" for name, value in memory.items() if name != BROKER and value > bounds.memory
    ]
    wrong += [f"open files of {name} grew by {value:.1%}" for name, value in growth.items() if value > bounds.files]
    if lag_max > bounds.lag_s * rate:
        wrong.append(f"lag: {lag_max} records")
    if p99_ms is None or p99_ms > bounds.p99_ms:
        wrong.append(f"freshness: p99 {p99_ms} ms")
    if errors:
        wrong.append(f"{len(errors)} errors in the logs, such as {errors[0][:200]}")
    return {
        "samples": len(samples),
        "seconds": samples[-1].at_s - samples[0].at_s,
        "memory_mb": {
            name: [samples[0].rss_mb[name], half[0].rss_mb[name], samples[-1].rss_mb[name]] for name in names
        },
        "memory_spread_last_half": memory,
        "nodes": [samples[0].nodes, half[0].nodes, samples[-1].nodes],
        "files_max": {name: max(sample.files[name] for sample in samples) for name in names},
        "files_growth_last_half": growth,
        "lag_max_records": lag_max,
        "freshness_p50_ms": p_ms(samples[-1], samples[0], 0.5),
        "freshness_p99_ms": p99_ms,
        "mutations": samples[-1].done - samples[0].done,
        "errors": dict(Counter(line[:200] for line in errors)),
        "out_of_bounds": wrong,
    }


def _growth(before: Sequence[int], after: Sequence[int]) -> float:
    """Relative growth of the mean; up to two additional files are ignored."""
    if not before or not after:
        return 0.0
    return round(max(0.0, float(np.mean(after) - np.mean(before)) - 2) / float(np.mean(before)), 4)


def soak(minutes: float, rate: float, workers: int, shards: int, bounds: Bounds) -> dict[str, Any]:
    """Run the soak and return its verdict; samples are written to samples.jsonl as they are taken."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    samples: list[Sample] = []
    kept = {"retention_s": RETENTION_S, "lateness_s": LATENESS_S}
    with Rig(FOLDER, workers=workers, shards=shards, **kept) as rig, (FOLDER / "samples.jsonl").open("w") as log:

        def seen(sample: Sample) -> None:
            samples.append(sample)
            log.write(json.dumps({key: value for key, value in asdict(sample).items() if key != "freshness"}) + "\n")
            log.flush()

        result(rig.feeder("live", count=WARM_EVENTS))
        rig.wait_drained()
        feeder = rig.feeder("live", rate=rate, first=WARM_EVENTS, seconds=minutes * 60)
        end = time.monotonic() + minutes * 60
        rig.watch(lambda: time.monotonic() >= end, EVERY_S, seen)
        sent = result(feeder)
        rig.wait_drained(300.0)
        rig.stop()
        found = verdict(samples, rate, bounds, rig.errors())
    return {"rate": rate, "sent": sent, "workers": workers, "shards": shards, **found}


def main() -> int:
    """Run the soak and print its figures; return 1 if one is out of bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=500.0, help="events per second")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--memory", type=float, default=Bounds.memory, help="(max − min) / mean over the last half")
    parser.add_argument("--p99-ms", type=float, default=Bounds.p99_ms)
    given = parser.parse_args()
    end_well()
    bounds = Bounds(memory=given.memory, p99_ms=given.p99_ms)
    found = soak(given.minutes, given.rate, given.workers, given.shards, bounds)
    return report(found, FOLDER, "out_of_bounds")


if __name__ == "__main__":
    sys.exit(main())
