"""Effect of more shards and workers on one machine: `python -m tests.load.scaling` (make scaling).

For each cluster: the rate that it drains, its freshness at a steady rate, and the time of one worker to rebuild
everything from the log.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from typing import Any

from tests.load.overload import Flow, sustainable
from tests.load.rig import Rig, Sample, end_well, p_ms, result
from tests.support import tidy

FOLDER = tidy.ROOT / "build" / "scaling"
CLUSTERS = ((1, 1), (1, 2), (2, 2), (1, 4), (2, 4))
"""(workers, shards)."""
STEADY_S = 60.0


def steady(rig: Rig, flow: Flow, rate: float) -> dict[str, Any]:
    """Measure freshness at a rate."""
    feeder = flow.feed(rig, rate=rate, count=int(rate * STEADY_S))
    seen: list[Sample] = []
    rig.watch(lambda: feeder.poll() is not None, 2.0, seen.append)
    flow.took(result(feeder))
    rig.wait_drained()
    last = rig.sample()
    p50_ms, p99_ms = p_ms(last, seen[1], 0.5), p_ms(last, seen[1], 0.99)
    return {"rate": rate, "p50_ms": p50_ms, "p99_ms": p99_ms, "lag_max": max(sample.lag_records for sample in seen)}


def rebuild(rig: Rig, events: int) -> dict[str, Any]:
    """Seconds until a worker without a state has processed the whole log again."""
    rig.stop()
    worker = rig.workers[0]
    for shard in worker.settings.datadir.glob("shard-*"):
        shutil.rmtree(shard)
    begin = time.monotonic()
    worker.start()
    worker.wait_ready()
    ready_s = time.monotonic() - begin
    rig.workers = [worker]
    while (reading := rig.reading()).mutations < events or reading.lag_records:
        rig.check()
        time.sleep(0.2)
    seconds = time.monotonic() - begin
    return {
        "mutations": reading.mutations,
        "ready_s": round(ready_s, 1),
        "seconds": round(seconds, 1),
        "seconds_per_million": round(seconds / reading.mutations * 1e6, 1),
    }


def measure(workers: int, shards: int, rates: list[float]) -> dict[str, Any]:
    """Measure one cluster."""
    folder = FOLDER / f"{workers}-{shards}"
    flow = Flow()
    with Rig(folder, workers=workers, shards=shards, retention_s=0) as rig:
        found: dict[str, Any] = {"workers": workers, "shards": shards, "drained_per_s": round(sustainable(rig, flow))}
        found["steady"] = [steady(rig, flow, rate) for rate in rates]
        found["rebuild"] = rebuild(rig, flow.sent)
        rig.stop()
        found["errors"] = rig.errors()
    return found


def main() -> int:
    """Measure and print each cluster as a line of JSON; return 1 if a log had an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, action="append", help="events per second; may be repeated")
    parser.add_argument("--cluster", action="append", help="WORKERSxSHARDS, such as 2x4; may be repeated")
    given = parser.parse_args()
    end_well()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    clusters = [tuple(map(int, text.split("x"))) for text in given.cluster or ()] or CLUSTERS
    failed = False
    for workers, shards in clusters:
        found = measure(workers, shards, given.rate or [400.0])
        failed |= bool(found["errors"])
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
