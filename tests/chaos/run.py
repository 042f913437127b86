"""Chaos runs: `python -m tests.chaos.run` (make chaos). A seed defines a schedule of faults and a stream of events."""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from streams.kafka.topics import Topics
from streams.worker.group.assignment import LATE_S
from tests.chaos import errors, evidence
from tests.chaos.cluster import Cluster
from tests.chaos.judge import find_problems, quantile
from tests.chaos.schedule import CUT, KINDS, SILENT, schedule
from tests.chaos.stream import Message, messages, truth
from tests.load.rig import end_well
from tests.support import tidy
from tests.support.workers import producer, wait_quiet

FOLDER = tidy.ROOT / "build" / "chaos"
DELAYING = {CUT, SILENT}
"""Faults that delay messages in transit."""
QUIET_S = 180.0
STILL_S = 5.0


@dataclass(frozen=True)
class Plan:
    """Parameters of a run: events, rate, faults during the stream, cluster."""

    events: int = 20_000
    rate: float = 500.0
    faults: int = 5
    shards: int = 4
    workers: int = 3
    kinds: tuple[str, ...] = KINDS

    @property
    def seconds(self) -> float:
        """Duration of the stream."""
        return self.events / self.rate


QUICK = Plan(events=10_000, rate=500.0, faults=3)


@dataclass
class Verdict:
    """The result of one seed; times in seconds."""

    seed: int
    problems: list[str]
    faults: list[str]
    skipped: list[str] = field(default_factory=list)
    messages: int = 0
    users: int = 0
    ends: list[str] = field(default_factory=list)
    kills: int = 0
    recovery_s: list[float] = field(default_factory=list)
    stalls: dict[float, float] = field(default_factory=dict)
    broker_away: bool = False
    delayed: list[str] = field(default_factory=list)
    quiet_s: float = 0.0
    scores: int = 0
    repeated_scores: int = 0
    repeated_messages: int = 0
    phases_s: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the run has no problem."""
        return not self.problems

    def line(self) -> str:
        """A summary of the run in one line."""
        slowest = f"{max(self.recovery_s):.1f} s" if self.recovery_s else "-"
        p95_s = quantile(self.stalls, 0.95)
        stall = "-" if p95_s is None else f"{p95_s:.2f} s{' (broker away)' if self.broker_away else ''}"
        result = "ok" if self.ok else "FAILED"
        return (
            f"seed {self.seed}: {result}, {self.messages} messages, {self.users} users, {self.kills} kills, "
            f"shard published again after at most {slowest}, rebalance p95 {stall}, idle after {self.quiet_s:.1f} s, "
            f"{self.repeated_scores} of {self.scores} scores repeated, {self.seconds:.0f} s"
        )


def say(text: str) -> None:
    """Print a progress line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def feed(cluster: Cluster, sent: list[Message], rate: float, failed: list[BaseException]) -> None:
    """Send the messages at a steady rate; every one must be acknowledged."""
    topics, begin = Topics(cluster.settings), time.monotonic()
    futures = []
    try:
        with producer(cluster.settings) as sender:
            for number, message in enumerate(sent):
                time.sleep(max(0.0, begin + number / rate - time.monotonic()))
                stamp = time.time_ns() // 1_000_000 + message.skew_s * 1_000
                name = topics.inputs[message.kind].name
                futures.append(sender.send(name, message.value, partition=message.partition, timestamp_ms=stamp))
        for future in futures:
            future.get(0)
    except BaseException as error:  # noqa: BLE001 - raised by the run
        failed.append(error)


def run(seed: int, plan: Plan, folder: Path) -> Verdict:
    """Run one seed; its logs stay in `folder`."""
    begin = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    faults = schedule(seed, plan.faults, plan.seconds, plan.workers, plan.kinds)
    sent = messages(seed, plan.events)
    (folder / "schedule.txt").write_text("".join(f"{fault}\n" for fault in faults), encoding="utf-8")
    verdict = Verdict(seed, [], [str(fault) for fault in faults], messages=len(sent))
    expected: list[Any] = []
    reference = threading.Thread(target=lambda: expected.append(evidence.expected_result(truth(sent), sent)))
    with Cluster(folder, workers=plan.workers, shards=plan.shards, faults=faults, static=bool(seed % 2)) as cluster:
        try:
            actual, out = _disturb(cluster, plan, sent, verdict)
        except AssertionError as error:
            verdict.problems.append(str(error).splitlines()[0])
            actual = None
        reference.start()
        reference.join()
        if actual is not None:
            verdict.users = len(expected[0].scores)
            late = evidence.writes_after_handover(cluster.kafka.folder, Topics(cluster.settings), plan.shards)
            # Messages in transit when forwarding stopped arrive when it resumes, also if the shard has a new owner.
            delayed = {fault.kind for fault in faults} & DELAYING
            verdict.delayed = late if delayed else []
            actual.errors = unexpected(cluster) + ([] if delayed else late)
            verdict.problems += find_problems(expected[0], actual)
            verdict.scores, verdict.repeated_scores = out.scores, out.repeated
            verdict.recovery_s = evidence.recovery_s(cluster.happened.kills, out)
        verdict.kills, verdict.skipped = len(cluster.happened.kills), cluster.happened.skipped
        verdict.stalls = evidence.stalls(cluster.members)
        verdict.broker_away = any(fault.kind in errors.BROKER for fault in faults)
        verdict.ends = [
            f"{end.at_s:.1f} s: worker {end.worker}, {end.code} ({end.asked or 'by itself'}): {end.last_line[:300]}"
            for member in cluster.members
            for end in member.ends
        ]
    verdict.seconds = time.monotonic() - begin
    if verdict.ok:
        shutil.rmtree(folder / "kafka", ignore_errors=True)
    (folder / "verdict.json").write_text(json.dumps(asdict(verdict), indent=1), encoding="utf-8")
    return verdict


def _disturb(cluster: Cluster, plan: Plan, sent: list[Message], verdict: Verdict) -> Any:
    """Feed the cluster during the faults, wait until it is idle, stop it, and collect its results."""
    begin = time.monotonic()

    def phase(name: str) -> None:
        verdict.phases_s[name] = round(time.monotonic() - begin - sum(verdict.phases_s.values()), 1)

    cluster.begin()
    phase("start")
    failed: list[BaseException] = []
    rate = plan.rate * len(sent) / plan.events
    feeder = threading.Thread(target=feed, args=(cluster, sent, rate, failed))
    feeder.start()
    cluster.start_faults()
    feeder.join()
    if failed:
        raise failed[0]
    phase("stream")
    cluster.wait_faults()
    phase("settle")
    if {fault.kind for fault in cluster.faults} & DELAYING:
        # A late write of a previous owner stays on the score topic until the new owner has republished all scores.
        time.sleep(LATE_S + 2.0)
        cluster.wait_faults()
        phase("late")
    verdict.quiet_s = round(wait_quiet(cluster.settings, QUIET_S, STILL_S), 1)
    phase("quiet")
    live = evidence.read_live(cluster.settings, cluster.members)
    cluster.finish()
    phase("stop")
    actual, verdict.repeated_messages = evidence.collect(cluster.settings, cluster.members, live, sent)
    phase("collect")
    return actual, live.out


def unexpected(cluster: Cluster) -> list[str]:
    """Worker exits and error lines that no fault of the run explains, each kind once."""
    kinds = {fault.kind for fault in cluster.faults}
    lines_by_kind: dict[tuple[int, str], list[str]] = {}
    for member in cluster.members:
        for line in evidence.error_lines(member.log) if member.log.exists() else ():
            if not errors.explained(line, kinds):
                lines_by_kind.setdefault((member.number, re.sub(r"\d+", "0", line)), []).append(line)
    ends = [end for member in cluster.members for end in member.ends if not errors.expected_exit(end, kinds)]
    return [
        *(
            f"worker {worker} logged {len(lines)} times: {lines[0][:400]}"
            for (worker, _), lines in lines_by_kind.items()
        ),
        *(
            f"worker {end.worker} ended with {end.code} ({end.asked or 'by itself'}): {end.last_line[:400]}"
            for end in ends
        ),
    ]


def summary(verdicts: list[Verdict], plan: Plan) -> dict[str, Any]:
    """Summarize all seeds."""
    recovery = [seconds for verdict in verdicts for seconds in verdict.recovery_s]
    stalls = Counter[float]()
    for verdict in verdicts:
        if not verdict.broker_away:
            stalls.update(verdict.stalls)
    return {
        "seeds": len(verdicts),
        "failed": [verdict.seed for verdict in verdicts if not verdict.ok],
        "shards": plan.shards,
        "workers": plan.workers,
        "messages": sum(verdict.messages for verdict in verdicts),
        "kills": sum(verdict.kills for verdict in verdicts),
        "recovery_max_s": max(recovery, default=None),
        # While the broker is away a rebalance cannot complete: such runs do not count for rebalance times.
        "rebalances": max(stalls.values(), default=0),
        "rebalance_p95_s": quantile(stalls, 0.95),
        "scores": sum(verdict.scores for verdict in verdicts),
        "repeated_scores": sum(verdict.repeated_scores for verdict in verdicts),
        "seconds": round(sum(verdict.seconds for verdict in verdicts)),
        "runs": [asdict(verdict) for verdict in verdicts],
    }


def main() -> int:
    """Run the seeds; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run only this seed")
    parser.add_argument("--seeds", type=int, help="number of seeds, from --first on")
    parser.add_argument("--first", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--quick", action="store_true", help="two minutes")
    parser.add_argument("--shards", type=int, default=Plan.shards)
    parser.add_argument("--workers", type=int, default=Plan.workers)
    parser.add_argument("--faults", help="only these kinds of faults, separated by commas")
    given = parser.parse_args()
    end_well()
    form = QUICK if given.quick else Plan()
    kinds = tuple(given.faults.split(",")) if given.faults else KINDS
    plan = Plan(form.events, form.rate, form.faults, given.shards, given.workers, kinds)
    count = given.seeds or (2 if given.quick else 12)
    seeds = [given.seed] if given.seed is not None else list(range(given.first, given.first + count))
    verdicts = []
    for seed in seeds:
        verdict = run(seed, plan, FOLDER / str(seed))
        verdicts.append(verdict)
        say(verdict.line())
        for line in [
            *(f"  fault   {fault}" for fault in verdict.faults),
            *(f"  problem {p}" for p in verdict.problems),
        ]:
            say(line)
        if not verdict.ok:
            again = f"make chaos SEED={seed} SHARDS={plan.shards} WORKERS={plan.workers}"
            say(f"  logs: {FOLDER / str(seed)}; to repeat the run: {again}{' QUICK=1' if given.quick else ''}")
        (FOLDER / "summary.json").write_text(json.dumps(summary(verdicts, plan), indent=1), encoding="utf-8")
    say(json.dumps({key: value for key, value in summary(verdicts, plan).items() if key != "runs"}))
    return int(any(not verdict.ok for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
