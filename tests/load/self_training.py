"""The trainer beside a worker, on a replayed stream: `python -m tests.load.self_training FILE`.

A broker and a worker that begins with the packaged artifact get the events in slices of event time, each post before
the other events of its slice. After every `--every` days of event time the trainer runs one cycle. At the end the
predictions that were served are compared, over time, with those that the packaged artifact would have made, and with
the past mean. With `--poison DAY`, every share of the seven days from there on names a random post of the last three
days, so that for a week reach does not depend on the author. With `--offline`, the same cycles run on the list of
events, without a broker.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from model.artifact import Artifact
from model.evaluation.calibration import walk_forward
from model.evaluation.live_figures import LivePosts, calibration, figures, model_version, past_mean
from model.evaluation.metrics import spearman
from streams.messages.closed_posts import decode
from streams.offline.replay import cluster
from streams.settings.settings import Settings
from streams.shard.graph_view import graph_spec
from streams.trainer.cycle import InUse, run_cycle
from streams.trainer.shadow import in_order, shadow
from streams.worker.rollout.models_topic import read_models_topic
from tests.load.live_figures import Event, Feeder, decoded, read
from tests.load.rig import Rig
from tests.support import tidy
from tests.support.workers import environment, producer, wait_for

HOUR_S, DAY_S = 3_600, 86_400
STEPS = 2_000
"""Steps of a replay; with more posts, some share the state before the first of them."""
SETTLE_S = 130.0
"""The worker sends its closed posts at most every two minutes."""
POISON_S, POISON_POSTS_S = 7 * DAY_S, 3 * DAY_S
"""Length of a poisoned stretch, and the age up to which its shares name posts."""


def slices(events: Sequence[Event], hours: float) -> Iterator[list[Event]]:
    """Yield the events of each slice of event time."""
    for _, group in groupby(events, key=lambda event: event["time"] // (hours * HOUR_S)):
        yield list(group)


def poisoned(events: Sequence[Event], begin: float, seed: int = 0) -> list[Event]:
    """Return the events with random contents in the shares of the week from `begin` (s) on."""
    random, recent, result = np.random.default_rng(seed), list[Event](), list[Event]()
    for event in events:
        if event["type"] == "create":
            recent = [*(post for post in recent if post["time"] > event["time"] - POISON_POSTS_S), event]
        given = event
        if event["type"] == "share" and begin <= event["time"] < begin + POISON_S and recent:
            given = {**event, "content": recent[int(random.integers(len(recent)))]["content"]}
        result.append(given)
    return result


def train(settings: Settings) -> dict[str, Any]:
    """Run one cycle of the trainer; return its decision."""
    command = [sys.executable, "-W", "ignore", "-m", "streams.cli", "trainer", "--once", "--json"]
    ran = subprocess.run(command, env=environment(settings), cwd=tidy.ROOT, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"trainer failed: {ran.stderr.strip()[-2_000:]}")
    decision: dict[str, Any] = json.loads(ran.stdout)
    return decision


def served(
    rig: Rig, events: Sequence[Event], hours: float, every_days: float
) -> tuple[LivePosts, list[dict[str, Any]]]:
    """Feed the worker and run the trainer; return the closed posts as served, and the decisions."""
    decisions: list[dict[str, Any]] = []
    trained_at = next(event["time"] for event in events if event["type"] == "create")
    with producer(rig.settings) as sender:
        feeder = Feeder(rig.settings, sender)
        for chunk in slices(events, hours):
            feeder.send([event for event in chunk if event["type"] == "create"])
            feeder.wait()
            feeder.send([event for event in chunk if event["type"] != "create"])
            feeder.wait()
            if chunk[-1]["time"] - trained_at >= every_days * DAY_S:
                trained_at = chunk[-1]["time"]
                decisions.append(train(rig.settings))
                sys.stderr.write(json.dumps(brief(decisions[-1])) + "\n")
        feeder.close()
    time.sleep(SETTLE_S)

    def sent() -> bool:
        state = read_models_topic(rig.settings)
        return state is not None and 0 in state.posts

    wait_for(sent, 60, "the closed posts")
    state = read_models_topic(rig.settings)
    assert state is not None
    return decode(state.posts[0]), decisions


def offline(events: Sequence[Event], every_days: float) -> tuple[LivePosts, LivePosts, list[dict[str, Any]]]:
    """Run the cycles on the list of events.

    Returns:
        The closed posts as they would be served, as the packaged artifact alone would serve them, and the decisions.
    """

    def progress(line: str) -> None:
        if not line.startswith(("epoch ", "graph ")):
            sys.stderr.write(f"  {line}\n")

    packaged = Artifact.default()
    ordered, used = in_order(decoded(events)), InUse(packaged)
    times = np.array([event.time for event in ordered])
    begin = int(next(event["time"] for event in events if event["type"] == "create") * 1_000_000)
    decisions, served_by = list[dict[str, Any]](), [(0, used.artifact)]
    for moment in range(begin, int(times[-1]), int(every_days * DAY_S * 1_000_000)):
        started = time.monotonic()
        decision = run_cycle(ordered[: int(np.searchsorted(times, moment))], used, None, len(decisions), progress)
        figures_of = decision.figures()
        told = decision.row() | {"figures": figures_of, "seconds": round(time.monotonic() - started, 1)}
        decisions.append(told)
        sys.stderr.write(json.dumps(brief(told)) + "\n")
        if decision.artifact is not None:
            before = used.artifact if decision.action == "accepted" else None
            used = InUse(decision.artifact, before, moment, packaged)
            served_by.append((moment, decision.artifact))
    by_first = shadow(ordered, packaged, 0, STEPS).posts
    parts = []
    ends = [*(since for since, _ in served_by[1:]), int(times[-1])]
    for (since, artifact), until in zip(served_by, ends, strict=True):
        # Shares count up to the horizon after the last post.
        end = int(np.searchsorted(times, until + artifact.config.horizon_s * 1_000_000, side="right"))
        same = artifact.version == packaged.version
        posts = by_first if same else shadow(ordered[:end], artifact, since, STEPS).posts
        parts.append(posts[(posts["created_at"] > since) & (posts["created_at"] <= until)])
    return np.concatenate(parts), by_first, decisions


def by_packaged(events: Sequence[Event], hours: float) -> LivePosts:
    """Return the closed posts with the predictions of the packaged artifact, from the same slices."""
    artifact = Artifact.default()
    spec = graph_spec(artifact.config, retention_s=0, lateness_s=0)
    with (
        tempfile.TemporaryDirectory(prefix="groundswell-packaged-") as folder,
        cluster(artifact, spec, Path(folder), 1, live_posts=len(events)) as opened,
    ):
        for chunk in slices(events, hours):
            for is_create in (True, False):
                opened.feed(decoded(event for event in chunk if (event["type"] == "create") == is_create))
                opened.drain()
        return opened.shards[0].posts.closed


def brief(decision: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a decision that the summary shows."""
    told = decision.get("figures") or {}
    return {
        "as_of_day": round(decision["as_of"] / 1e6 / DAY_S, 1),
        "action": decision["action"],
        "candidate": decision["candidate"],
        "posts": told.get("posts"),
        "spearman": {name: figure["value"] for name, figure in told.get("spearman", {}).items()},
        "calibration": told.get("calibration"),
        "kept_top": told.get("kept_top"),
        "better": told.get("better"),
        "trained": told.get("trained"),
        "reasons": decision["reasons"],
        "seconds": decision["seconds"],
    }


def aligned(posts: LivePosts, packaged: LivePosts) -> tuple[LivePosts, LivePosts]:
    """Return the posts that both have, in order of time."""
    _, mine, theirs = np.intersect1d(posts["content"], packaged["content"], return_indices=True)
    order = np.argsort(posts["created_at"][mine], kind="stable")
    return posts[mine][order], packaged[theirs][order]


def ahead(posts: LivePosts, packaged: LivePosts, window: int, by: float = 0.02) -> int | None:
    """Return after how many closed posts the newest `window` are ranked better by `by` than by what ships."""
    posts, packaged = aligned(posts, packaged)
    for end in range(window, len(posts) + 1, 50):
        rows = slice(end - window, end)
        reach = posts["reach"][rows].astype(np.float64)
        if spearman(posts["score"][rows], reach) >= spearman(packaged["score"][rows], reach) + by:
            return end
    return None


def over_time(posts: LivePosts, packaged: LivePosts, window: int) -> list[dict[str, Any]]:
    """Return Spearman over windows of closed posts: as served, by the packaged artifact, by the past mean."""
    posts, packaged = aligned(posts, packaged)
    rows = []
    for begin in range(0, len(posts) - window // 2, window):
        part, shipped = posts[begin : begin + window], packaged[begin : begin + window]
        reach = part["reach"].astype(np.float64)
        rows.append(
            {
                "closed_posts": begin + len(part),
                "day": round(float(part["created_at"][-1] - posts["created_at"][0]) / 1e6 / DAY_S, 1),
                "served": round(spearman(part["score"], reach), 3),
                "packaged": round(spearman(shipped["score"], reach), 3),
                "past_mean": round(spearman(past_mean(part), reach), 3),
                "models": [model_version(number) for number in np.unique(part["model"]).tolist()],
                "calibration": calibration(part["people"].astype(np.float64), reach)[0],
            }
        )
    return rows


def main() -> int:
    """Run the test of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--since", type=float, default=0.0, help="first event, in Unix seconds")
    parser.add_argument("--posts", type=int, default=4_000, help="creates of the file that are sent")
    parser.add_argument("--hours", type=float, default=6.0, help="event time of a slice")
    parser.add_argument("--every", type=float, default=14.0, help="days of event time between two cycles")
    parser.add_argument("--poison", type=float, help="day after the first post from which a week is poisoned")
    parser.add_argument("--offline", action="store_true", help="without a broker, each post by the state before it")
    parser.add_argument("--window", type=int, default=1_000, help="closed posts of one figure")
    given = parser.parse_args()
    events, begin = read(given.file, given.posts, given.since), time.monotonic()
    if given.poison is not None:
        first = next(event["time"] for event in events if event["type"] == "create")
        events = poisoned(events, first + given.poison * DAY_S)
    if given.offline:
        posts, packaged, decisions = offline(events, given.every)
    else:
        with tempfile.TemporaryDirectory(prefix="groundswell-train-") as folder:
            options = {"partitions": 1, "live_posts": 100_000, "calibrate": True}
            with Rig(Path(folder), workers=1, shards=1, **options) as rig:
                posts, decisions = served(rig, events, given.hours, given.every)
        packaged = by_packaged(events, given.hours)
    fed_s = time.monotonic() - begin
    people = walk_forward(packaged, Artifact.default().config.horizon_s * 1_000_000)
    known = ~np.isnan(people)
    report = {
        "events": len(events),
        "closed_posts": len(posts),
        "accepted": sum(decision["action"] == "accepted" for decision in decisions),
        "refused": sum(decision["action"] == "refused" for decision in decisions),
        "restored": sum(decision["action"] == "restored" for decision in decisions),
        "decisions": [brief(decision) for decision in decisions],
        "over_time": over_time(posts, packaged, given.window),
        "ahead": ahead(posts, packaged, given.window),
        "whole": {"served": figures(posts)["spearman"], "packaged": figures(packaged)["spearman"]},
        "calibration_packaged": calibration(people[known], packaged["reach"][known].astype(np.float64))[0],
        "seconds": [round(fed_s, 1), round(time.monotonic() - begin, 1)],
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
