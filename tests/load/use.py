"""`groundswell model use` under load: `python -m tests.load.use`.

While events come at a steady rate, the workers switch to another artifact: the packaged one with another head. Measures
the effect on freshness, and checks that no event is lost and no user keeps a score of the old version.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np

from model.artifact import Artifact
from streams.kafka.topics import Topics
from tests.load.overload import TOP, Flow, same_scores
from tests.load.rig import Rig, Sample, end_well, p_ms, report, result
from tests.support import tidy
from tests.support.workers import environment, read_all

FOLDER = tidy.ROOT / "build" / "use"
CALM_S, EVERY_S, QUIET_S = 15.0, 1.0, 5.0
WARM_EVENTS = 300_000
TARGET_MS, WITHIN_S = 2_000.0, 60.0


def another(factor: float = 1.25) -> Artifact:
    """The packaged artifact with larger scores."""
    packaged = Artifact.default()
    weights = dict(packaged.weights)
    weights["head.out.weight"] = weights["head.out.weight"] * np.float32(factor)
    return Artifact(weights, packaged.config, "For a load test.\n")


def course(
    rig: Rig, flow: Flow, rate: float, seconds: float
) -> tuple[list[Sample], dict[str, Any], tuple[float, float]]:
    """Run with a switch in the middle; return samples, the command's report, and the time of the switch."""
    feeder = flow.feed(rig, rate=rate, seconds=seconds)
    seen: list[Sample] = []
    begin = time.monotonic()
    rig.watch(lambda: time.monotonic() - begin > CALM_S, EVERY_S, seen.append)
    command = [sys.executable, "-m", "streams.cli", "model", "use", str(FOLDER / "new"), "--json"]
    began_s = rig.sample().at_s
    using = subprocess.Popen(
        command, env=environment(rig.settings), cwd=tidy.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    rig.watch(lambda: using.poll() is not None, EVERY_S, seen.append)
    done_s = rig.sample().at_s
    report, wrong = using.communicate()
    if using.returncode:
        raise RuntimeError(f"model use failed: {wrong.strip()}")
    if feeder.poll() is not None:
        raise RuntimeError("the events ended before the switch was complete: raise --seconds")
    rig.watch(lambda: feeder.poll() is not None, EVERY_S, seen.append)
    flow.took(result(feeder))
    return seen, json.loads(report), (began_s, done_s)


def freshness(seen: list[Sample], began_s: float, done_s: float) -> dict[str, Any]:
    """Freshness by second (p99, ms): before, during and after the switch."""
    found = [(later.at_s, p_ms(later, earlier, 0.99)) for earlier, later in pairwise(seen)]
    each = [(at_s, p99) for at_s, p99 in found if p99 is not None]
    before = [p99 for at_s, p99 in each if at_s <= began_s]
    ready = [p99 for at_s, p99 in each if began_s < at_s <= done_s]
    after = [(at_s, p99) for at_s, p99 in each if at_s > done_s]
    late = [at_s for at_s, p99 in after if p99 > TARGET_MS]
    return {
        "p99_ms_by_second_before_median": float(np.median(before)) if before else None,
        "p99_ms_by_second_before_worst": max(before, default=None),
        "p99_ms_by_second_getting_ready_worst": max(ready, default=None),
        "p99_ms_by_second_after_worst": max((p99 for _, p99 in after), default=None),
        "p99_ms_of_all_after": p_ms(seen[-1], next(one for one in seen if one.at_s >= done_s), 0.99),
        "target_ms": TARGET_MS,
        "below_target_again_after_s": round(max(late) - done_s, 1) if late else 0.0,
    }


def published(rig: Rig, new: Artifact) -> dict[str, Any]:
    """Score messages by version, users by the version of their last score, and users left with another version."""
    last, messages = dict[bytes, str](), Counter[str]()
    for record in read_all(rig.settings, [Topics(rig.settings).score.name]):
        if record.value is None:
            last.pop(record.key, None)
            continue
        last[record.key] = version = str(json.loads(record.value)["model"])
        messages[version] += 1
    users = Counter(last.values())
    return {"messages": dict(messages), "users": dict(users), "left_behind": sum(users.values()) - users[new.version]}


def use(rate: float, seconds: float, workers: int, shards: int, flow: Flow, warm_events: int) -> dict[str, Any]:
    """Run the test and return its figures; `problems` lists what is out of bounds."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    new = another()
    new.save(FOLDER / "new")
    with Rig(FOLDER, workers=workers, shards=shards, retention_s=0) as rig:
        flow.took(result(flow.feed(rig, count=warm_events)))
        rig.wait_drained()
        warm = rig.sample()
        seen, report, when = course(rig, flow, rate, seconds)
        rig.wait_drained()
        time.sleep(QUIET_S)
        reading, found, reaches = rig.reading(), published(rig, new), dict[str, float]()
        for process in rig.workers:
            for row in json.loads(process.get(f"/api/v1/top?limit={TOP}")[1])["top"]:
                reaches[row["user"]] = float(row["reach"])
        rig.stop()
        fresh = freshness(seen, *when)
        problems = rig.errors() + same_scores(rig, flow, reaches, new)
    if reading.events != flow.sent:
        problems.append(f"{flow.sent} events were sent, {reading.events} accepted")
    if found["left_behind"] or set(found["messages"]) - {new.version, Artifact.default().version}:
        problems.append(f"{found['left_behind']} users have a last score of another version")
    if fresh["below_target_again_after_s"] > WITHIN_S:
        problems.append(f"freshness was above {TARGET_MS:.0f} ms for {fresh['below_target_again_after_s']} s")
    memory = {name: [warm.rss_mb[name], max(one.rss_mb[name] for one in seen)] for name in warm.rss_mb}
    about = {"rate": rate, "workers": workers, "shards": shards, "nodes": warm.nodes, "events": flow.sent}
    return {
        **about,
        "switch": report,
        "command_s": round(when[1] - when[0], 1),
        **fresh,
        **found,
        "memory_mb": memory,
        "problems": problems,
    }


def main() -> int:
    """Run the test and print its figures; return 1 if there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1_000.0, help="events per second")
    parser.add_argument("--seconds", type=float, default=120.0, help="duration of the events around the switch")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--stream", choices=("load", "crowd"), default="crowd", help="10,000 or 100,000 users")
    parser.add_argument("--warm", type=int, default=WARM_EVENTS, help="events before measuring starts")
    given = parser.parse_args()
    end_well()
    flow = Flow(stream=given.stream)
    found = use(given.rate, given.seconds, given.workers, given.shards, flow, given.warm)
    return report(found, FOLDER)


if __name__ == "__main__":
    sys.exit(main())
