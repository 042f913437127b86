"""Load above a worker's capacity: `python -m tests.load.overload` (make overload).

1. Sustainable rate: how fast a burst at full speed is drained.
2. Calm: a tenth of that rate, to measure normal memory and freshness.
3. Overload: a multiple of that rate for minutes. Events that the broker does not accept in time are not sent.
4. Recovery: the calm rate until the freshness is normal again; then counts and scores are checked.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from graphstate.types import Mutation
from model.artifact import Artifact
from streams.messages.events import mutations
from streams.offline.replay import cluster, replay
from streams.settings.settings import Settings
from tests.chaos import evidence
from tests.chaos.judge import TOLERANCE, records
from tests.load.events import STREAMS
from tests.load.rig import Rig, Sample, end_well, p_ms, report, result
from tests.support import tidy

FOLDER = tidy.ROOT / "build" / "overload"
SEED = 0
WARM_EVENTS, BURST_EVENTS = 200_000, 240_000
"""The first events make the graph denser and each event more expensive: windows are full before measuring. A burst
has at least a dozen micro-batches of the largest size, because progress is visible only at the end of each.
"""
CALM = 0.1
CALM_S = 20.0
WINDOW_S = 2.0
NORMAL, NORMAL_MS = 2.0, 1_000.0
"""Freshness is normal again below this multiple of the calm p99, or below a second, in two successive windows."""
TOP = 1_000


@dataclass
class Flow:
    """Number of sent events, which is the number of the next event: every event is sent once."""

    sent: int = 0
    stream: str = "load"

    def feed(self, rig: Rig, **options: float) -> Any:
        """Start a feeder with the next events."""
        return rig.feeder(self.stream, seed=SEED, first=self.sent, **options)

    def took(self, report: dict[str, Any]) -> dict[str, Any]:
        """Add the number of events that a feeder reports."""
        self.sent += int(report["events"])
        return report


def sustainable(rig: Rig, flow: Flow) -> float:
    """Events per second that the workers drain while a backlog exists."""
    flow.took(result(flow.feed(rig, count=WARM_EVENTS)))
    rig.wait_drained()
    flow.took(result(flow.feed(rig, count=BURST_EVENTS)))
    seen: list[Sample] = []
    rig.watch(rig.drained, 0.5, seen.append)
    seen.append(rig.sample())
    # The feeder competes for the processors: only the second half, without it, is measured.
    half = next(sample for sample in seen if sample.done >= (seen[0].done + seen[-1].done) / 2)
    last = next(sample for sample in seen if sample.done == seen[-1].done)
    return (last.done - half.done) / max(last.at_s - half.at_s, 0.1)


def calm(rig: Rig, flow: Flow, rate: float) -> tuple[float, list[Sample]]:
    """The p99 of freshness at a calm rate, and the samples."""
    feeder = flow.feed(rig, rate=rate, count=int(rate * CALM_S))
    seen: list[Sample] = []
    rig.watch(lambda: feeder.poll() is not None, WINDOW_S, seen.append)
    flow.took(result(feeder))
    rig.wait_drained()
    p99_ms = p_ms(rig.sample(), seen[1], 0.99)
    if p99_ms is None:
        raise RuntimeError("no score was published at a calm rate: see the worker's log")
    return p99_ms, seen


def recover(rig: Rig, flow: Flow, rate: float, normal_ms: float) -> tuple[float, list[Sample]]:
    """Seconds until the freshness is normal again at a calm rate."""
    begin, seen, good = time.monotonic(), [rig.sample()], 0
    feeder = flow.feed(rig, rate=rate, count=int(rate * CALM_S))
    while good < 2:
        time.sleep(WINDOW_S)
        rig.check()
        if feeder.poll() is not None:
            flow.took(result(feeder))
            feeder = flow.feed(rig, rate=rate, count=int(rate * CALM_S))
        seen.append(rig.sample())
        p99_ms = p_ms(seen[-1], seen[-2], 0.99)
        good = good + 1 if p99_ms is not None and p99_ms <= normal_ms else 0
    seconds = time.monotonic() - begin - 2 * WINDOW_S
    flow.took(result(feeder))
    return max(0.0, seconds), seen


def same_scores(rig: Rig, flow: Flow, reaches: dict[str, float], artifact: Artifact) -> list[str]:
    """Differences between the workers' states and top scores and a replay of every sent event."""
    with (
        TemporaryDirectory(prefix="groundswell-overload-") as folder,
        cluster(artifact, evidence.spec_of(artifact), Path(folder), 1) as alone,
    ):
        replay(alone, _every(flow))
        expected = {row["user"]: float(row["reach"]) for row in alone.shards[0].reads.top(TOP)}
        nodes = records(alone.shards[0].graph.snapshot())
    problems = []
    both = expected.keys() & reaches.keys()
    # Users of equal reach may change order at the end of the list.
    if len(both) < 0.98 * len(expected):
        problems.append(f"only {len(both)} of the top {len(expected)} users agree")
    far = [user for user in both if abs(reaches[user] - expected[user]) > TOLERANCE * max(1.0, expected[user])]
    if far:
        problems.append(f"{len(far)} users have a different reach, such as {far[0]}")
    folders = [process.settings.datadir for process in rig.workers]
    found: dict[Any, Any] = {}
    for part in evidence.graphs(folders, rig.settings.shards).values():
        found.update(part)
    differ = [key for key in nodes.keys() | found.keys() if nodes.get(key) != found.get(key)]
    if differ:
        problems.append(f"{len(differ)} of {len(nodes)} nodes differ, such as {min(differ)}")
    return problems


def write(samples: list[Sample]) -> None:
    """Write the samples to a file."""
    with (FOLDER / "samples.jsonl").open("w", encoding="utf-8") as log:
        for sample in samples:
            log.write(json.dumps({key: value for key, value in vars(sample).items() if key != "freshness"}) + "\n")


def _every(flow: Flow) -> Iterator[Mutation]:
    now_ms = 2_000_000_000_000
    for event in islice(STREAMS[flow.stream](SEED, 0), flow.sent):
        yield from mutations(event.value, event.kind, now_ms)


def overload(
    minutes: float, factor: float, workers: int, shards: int, memory_mb: float, *, replayed: bool = True
) -> dict[str, Any]:
    """Run the test and return its figures; `problems` lists what is out of bounds."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    flow = Flow()
    with Rig(FOLDER, workers=workers, shards=shards, retention_s=0) as rig:
        able = sustainable(rig, flow)
        calm_ms, before = calm(rig, flow, CALM * able)
        normal_ms = max(NORMAL * calm_ms, NORMAL_MS)
        offered = factor * able
        seen: list[Sample] = []
        feeder = flow.feed(rig, rate=offered, seconds=minutes * 60)
        rig.watch(lambda: feeder.poll() is not None, WINDOW_S, seen.append)
        report = flow.took(result(feeder))
        lag_end, overloaded_mb = rig.sample().lag_records, max(sample.rss_mb["w0"] for sample in seen)
        recovered_s, after = recover(rig, flow, CALM * able, normal_ms)
        rig.wait_drained()
        time.sleep(1.0)
        reading = rig.reading()
        reaches = {}
        for process in rig.workers:
            for row in json.loads(process.get(f"/api/v1/top?limit={TOP}")[1])["top"]:
                reaches[row["user"]] = float(row["reach"])
        rig.stop()
        every = [*before, *seen, *after]
        write(every)
        peak = {name: max(sample.rss_mb[name] for sample in every) for name in every[0].rss_mb}
        problems = [f"memory of {name}: {mb} MB" for name, mb in peak.items() if name != "broker" and mb > memory_mb]
        if reading.events != flow.sent:
            problems.append(f"{flow.sent} events were sent, {reading.events} accepted")
        if shards == 1 and reading.mutations != flow.sent:
            problems.append(f"{flow.sent} events were sent, {reading.mutations} applied")
        problems += rig.errors()
        if replayed:
            problems += same_scores(rig, flow, reaches, Artifact.default())
    return {
        "sustainable_per_s": round(able),
        "offered_per_s": round(offered),
        "sent_per_s": round(report["events"] / report["seconds"]),
        "sent_while_overloaded": report["events"],
        "events": flow.sent,
        "memory_calm_mb": max(sample.rss_mb["w0"] for sample in before),
        "memory_while_overloaded_mb": overloaded_mb,
        "memory_peak_mb": peak,
        "memory_limit_mb": memory_mb,
        "lag_at_end_records": lag_end,
        "calm_p99_ms": calm_ms,
        "normal_again_after_s": round(recovered_s, 1),
        "normal_is_below_ms": round(normal_ms, 1),
        "problems": problems,
    }


def main() -> int:
    """Run the test and print its figures; return 1 if there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--factor", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--shards", type=int, default=Settings.model_fields["shards"].default)
    parser.add_argument("--memory-mb", type=float, default=1_024.0, help="memory limit for a worker")
    parser.add_argument(
        "--no-replay",
        action="store_true",
        help="skip the comparison of every score with a replay, which doubles the time; events are counted in any case",
    )
    given = parser.parse_args()
    end_well()
    found = overload(
        given.minutes, given.factor, given.workers, given.shards, given.memory_mb, replayed=not given.no_replay
    )
    return report(found, FOLDER)


if __name__ == "__main__":
    sys.exit(main())
