"""Benchmark of the whole worker on the embedded Kafka, JSON to scores: `python -m tests.bench.e2e` (make bench-e2e).

1. start: time from process start to /readyz on states of several sizes, and their memory.
2. throughput: one worker with one shard drains a backlog; for comparison, the throughput of its parts alone.
3. freshness: latency at fixed rates, by the worker's own metric and by Kafka's log.
4. --minutes: a run at the maximal rate; shows whether throughput and memory stay flat.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from graphstate.storage.store import Store
from model.artifact import Artifact
from streams.messages.events import mutations
from tests.bench import against, e2e_answers, e2e_figures, opponents, report, system
from tests.bench.e2e_feed import Feeder, messages
from tests.bench.e2e_figures import WORKER, Moment, Row
from tests.bench.workloads import Size, generated
from tests.load.rig import MB, Rig, cpu_s, end_well, rss_mb
from tests.support.workers import WorkerProcess, wait_for

PARTS = ("start", "throughput", "freshness")
KEPT = {"retention_s": 3_600, "lateness_s": 900}
"""Settings in event time. Contents expire, so the graph has the same size after one million events and after ten."""
READY_S = 3_600.0
EVERY_S = 10.0
LOOK_S = 0.25
IN_FLIGHT = 65_536
"""Events in flight at the maximal rate: several micro-batches of the largest size."""
DECODED = 50_000
"""Messages that the bare loop decodes."""

RESULTS = "bench-e2e.json"
NOW_MS = 2_000_000_000_000
SETTLE_S = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """Sizes of a run: events of the backlog, events per second, and seconds per rate.

    steady_events: events after which as many contents expire as are created: the retention at 100 events per second.
    """

    size: Size = field(default_factory=Size)
    backlog: int = 200_000
    rates: tuple[float, ...] = (100.0, 1_000.0, 5_000.0)
    warm_s: float = 10.0
    rate_s: float = 60.0
    starts: tuple[Size, ...] = (Size(), Size(follows=2_000_000))
    steady_events: int = 500_000


QUICK = Plan(Size(10_000, 100_000), 20_000, (100.0, 1_000.0), 2.0, 5.0, (Size(10_000, 100_000),), 20_000)


class Bench:
    """A rig, a feeder that continues its stream from run to run, and one worker at a time."""

    def __init__(self, rig: Rig, feeder: Feeder, cache: Path, say: Say) -> None:
        self.rig, self.feeder = rig, feeder
        self.cache, self.say = cache, say
        self.artifact = Artifact.default()
        self.errors: list[str] = []

    def base(self, name: str, size: Size) -> Path:
        """Return the folder with the loaded base of a workload."""
        return system.base_state(generated(name, size), self.artifact, self.cache, self.say, KEPT)

    @contextmanager
    def worker(self, name: str, base: Path | None, **settings: Any) -> Iterator[WorkerProcess]:
        """A worker on a copy of a state, started but not yet ready; stopped with SIGTERM at the end."""
        if base is not None:
            install_state(base, self.rig.folder / name / "shard-0")
        process = self.rig.add(name, **settings)
        try:
            yield process
            if process.stop():
                self.errors.append(f"{name} ended with an error, see {process.log}")
        finally:
            process.kill()
            self.errors += self.rig.errors()
            self.rig.workers.remove(process)

    def ready(self, process: WorkerProcess) -> tuple[float, dict[str, float]]:
        """Wait for /readyz; return the seconds until then, in total and by the phase that the worker reported."""
        begin = last = time.monotonic()
        doing, phases = "processes and libraries", dict[str, float]()

        def ready() -> bool:
            nonlocal doing, last
            self.rig.check()
            status, body = process.get("/readyz")
            if not status:
                return False
            now = time.monotonic()
            phases[doing] = phases.get(doing, 0.0) + now - last
            doing, last = detail(body), now
            self.say(f"worker starting: {doing}, {now - begin:.0f} s")
            return status == 200

        wait_for(ready, READY_S, "the worker to be ready")
        return time.monotonic() - begin, phases

    def moment(self) -> Moment:
        """Take a sample of everything that is measured."""
        self.rig.check()
        return Moment(self.rig.sample(), e2e_figures.machine_busy_s(), self.feeder.cpu_s)


def detail(body: bytes) -> str:
    """The phase that a worker reports in /readyz."""
    body_json: dict[str, Any] = json.loads(body)
    return str(body_json["detail"])


def install_state(base: Path, folder: Path) -> None:
    """Copy a state to a worker's data folder, with its position at the beginning of an empty log."""
    system.copy_state(base, folder)
    store = Store(folder)
    store.write("meta", b"next", b"0")
    store.write("meta", b"marks", b"{}")
    store.commit()
    store.close()


# The parts


def part_header(what: str) -> Row:
    """Header of a part's results: what was measured, and the machine at the beginning of the part."""
    return {"what": what, "machine": {**report.machine(), "aiokafka": version("aiokafka")}}


def starts(bench: Bench, sizes: tuple[Size, ...]) -> Row:
    """Start workers on existing states: seconds to /readyz, and memory above that of a worker with an empty state.

    RocksDB's cache is set small: a setting bounds it, and it does not depend on the graph.
    """
    found, states = part_header("Bases of `flat`"), list[Row]()
    bases = [(None, Size(0, 0)), *((bench.base("flat", size), size) for size in sizes)]
    busy_s, begin = e2e_figures.machine_busy_s(), time.monotonic()
    own_s = 0.0
    for number, (base, size) in enumerate(bases):
        with bench.worker(f"start-{number}", base, prefix=f"start-{number}.", memory_mb=16) as process:
            ready_s, phases = bench.ready(process)
            time.sleep(SETTLE_S)
            assert process.process is not None
            resident_mb = rss_mb(process.process.pid)
            own_s += cpu_s(process.process.pid)
        empty_mb = states[0]["rss_mb"] if states else resident_mb
        per_user = (resident_mb - empty_mb) * MB / size.users if size.users else None
        row: Row = {"users": size.users, "follows": size.follows, "ready_s": round(ready_s, 1)}
        row |= {"rss_mb": round(resident_mb, 1), "bytes_per_user": None if per_user is None else round(per_user)}
        states.append({**row, "phases": {what: round(seconds, 2) for what, seconds in phases.items()}})
        shutil.rmtree(bench.rig.folder / f"start-{number}")
    seconds = time.monotonic() - begin
    others = max(0.0, e2e_figures.machine_busy_s() - busy_s - own_s) / seconds
    return {**found, "others_cores": round(others, 2), "states": states, "bytes_per_edge": e2e_figures.slope(states)}


def ceilings(size: Size, backlog: Row, say: Say) -> Row:
    """Events per second of parts of the work."""
    say("measuring the bare loops")
    updates = list(islice(generated("social", size).updates(), DECODED))
    sent = list(messages(updates))
    begin = time.perf_counter()
    for message in sent:
        mutations(message.value, message.kind, NOW_MS)
    decoded_s = time.perf_counter() - begin
    return {
        "feeder alone: made, sent, acknowledged": round(backlog["events"] / backlog["seconds"]),
        "bare loop: JSON decoded": round(len(sent) / decoded_s),
        "bare loop: JSON decoded, a row of RocksDB written": round(DECODED / opponents.floor_s(updates, 1.0)),
    }


def drain(bench: Bench, begin: Row) -> Row:
    """Time the backlog from when the worker is ready until its last event is committed.

    The ingest runs ahead of the steps: an interval between the ends of two steps would leave its work out.
    """
    moments = [bench.moment()]
    while moments[-1].sample.done < bench.feeder.sent:
        time.sleep(LOOK_S)
        now = bench.moment()
        # A worker that is too busy to answer reports no progress.
        if now.sample.done >= moments[-1].sample.done:
            moments.append(now)
        bench.say(f"throughput: {now.sample.done:,} of {bench.feeder.sent:,} events")
    return {**begin, **e2e_figures.figures(*e2e_figures.until_done(moments))}


def steady(bench: Bench, rate: float, plan: Plan) -> Row:
    """Freshness at a rate, of the events after the warm-up."""
    settings = bench.rig.settings
    bench.feeder.begin(rate=rate, seconds=plan.warm_s + plan.rate_s)
    end = time.monotonic() + plan.warm_s + plan.rate_s
    bench.say(f"{rate:,.0f}/s: warming up")
    time.sleep(plan.warm_s)
    first, offsets = bench.moment(), e2e_answers.ends(settings)
    while (left_s := end - time.monotonic()) > 0:
        bench.rig.check()
        bench.say(f"{rate:,.0f}/s: {left_s:.0f} s to go")
        time.sleep(min(1.0, left_s))
    bench.feeder.result()
    last = bench.moment()
    in_flight = bench.feeder.sent - last.sample.done
    bench.say(f"{rate:,.0f}/s: waiting until all events are processed")
    bench.rig.wait_drained()
    bench.say(f"{rate:,.0f}/s: reading Kafka's log")
    answers = e2e_answers.answers(settings, offsets, e2e_answers.ends(settings))
    return {
        "rate": rate,
        **e2e_figures.figures(first, last),
        "freshness_ms": e2e_figures.freshness(first, last),
        "by_kafka_ms": answers.quantiles_ms(),
        "answered": len(answers.seconds),
        "asked": answers.events,
        "in_flight": max(0, in_flight),
    }


def sustained(bench: Bench, minutes: float, steady_events: int, what: str) -> Row:
    """Run at the maximal rate for some minutes; the feeder sends when few events are in flight."""
    found, feeder, moments = part_header(f"{what}, {minutes:g} minutes"), bench.feeder, list[Moment]()
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        now = bench.moment()
        if not moments and now.sample.done >= steady_events:
            end = time.monotonic() + minutes * 60
        if now.sample.done >= steady_events and (not moments or now.sample.at_s - moments[-1].sample.at_s >= EVERY_S):
            moments.append(now)
        in_flight = feeder.sent - now.sample.done
        bench.say(f"maximum: {now.sample.done:,} events, {max(0.0, end - time.monotonic()):.0f} s to go at most")
        if in_flight < IN_FLIGHT // 2:
            feeder.begin(count=IN_FLIGHT - in_flight)
            feeder.result()
        else:
            time.sleep(LOOK_S)
    moments.append(bench.moment())
    course = [
        {"at_s": one.sample.at_s, "done": one.sample.done, "rss_mb": one.sample.rss_mb, "nodes": one.sample.nodes}
        for one in moments
    ]
    bench.rig.wait_drained()
    figures = e2e_figures.figures(moments[0], moments[-1])
    return {**found, **figures, "minutes": minutes, "thirds": e2e_figures.thirds(moments), "course": course}


def measure(plan: Plan, given: argparse.Namespace, show: Callable[[str, Row], None], say: Say) -> list[str]:
    """Run the requested parts and show each result when it is there; return the errors."""
    folder = given.out / "e2e"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    say("Kafka starts")
    settings: dict[str, Any] = {**KEPT, "target_ms": given.target_ms}
    with Rig(folder, workers=0, shards=1, **settings) as rig, Feeder(rig.kafka.address, plan.size) as feeder:
        bench = Bench(rig, feeder, given.cache, say)
        if "start" in given.part:
            show("start", starts(bench, plan.starts))
        if not {"throughput", "freshness"} & set(given.part) and not given.minutes:
            return bench.errors
        e2e_answers.stamp_scores(rig.settings)
        graph = f"{plan.size.users:,} users with {plan.size.follows:,} follows"
        base = bench.base("social", plan.size)
        begin = part_header(f"{graph}, a backlog of {plan.backlog:,} events")
        say("the feeder generates its graph")
        feeder.wait_ready()
        if "throughput" in given.part:
            say("the feeder sends a backlog")
            feeder.begin(count=plan.backlog)
            begin["ceilings"] = ceilings(plan.size, feeder.result(), say)
        with bench.worker(WORKER, base) as process:
            bench.ready(process)
            if "throughput" in given.part:
                show("throughput", drain(bench, begin))
                rig.wait_drained()
            if "freshness" in given.part:
                begin = part_header(f"{graph}, {plan.rate_s:g} s for each rate after {plan.warm_s:g} s to warm up")
                rates = [steady(bench, rate, plan) for rate in plan.rates]
                others = round(max(row["others_cores"] for row in rates), 2)
                show("freshness", {**begin, "others_cores": others, "rates": rates})
            if given.minutes:
                show("sustained", sustained(bench, given.minutes, plan.steady_events, graph))
    return bench.errors


# The command


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.e2e", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small graph, two rates, under a minute")
    parser.add_argument("--part", action="append", choices=PARTS, help="run only this part; may be repeated")
    parser.add_argument("--minutes", type=float, default=0.0, help="also run at the maximal rate for this time")
    parser.add_argument("--only-minutes", action="store_true", help="run only the part of --minutes")
    parser.add_argument("--rate", type=float, action="append", help="events per second; may be repeated")
    parser.add_argument("--seconds", type=float, help="duration of each rate")
    parser.add_argument("--target-ms", type=float, default=0.0, help="the worker's GROUNDSWELL_TARGET_MS")
    parser.add_argument("--backlog", type=int, help="events of the backlog")
    parser.add_argument("--users", type=int, help="users of the graph; ten follows per user")
    parser.add_argument(
        "--start", type=int, action="append", default=[], help="also start with this many users; ten follows per user"
    )
    parser.add_argument("--against", metavar="REF", help="measure a commit and this tree in turn: tests.bench.against")
    parser.add_argument("--write", action="store_true", help=f"write the section of docs/{report.PAGE} from build/")
    parser.add_argument("--note", default="", help="a sentence on the circumstances, for the page")
    parser.add_argument("--page", action="store_true", help="only write the section, measure nothing")
    parser.add_argument("--out", type=Path, default=report.BUILD, help="folder for the results")
    parser.add_argument("--cache", type=Path, help="folder for the loaded base graphs")
    given = parser.parse_args(arguments)
    given.cache = given.cache or given.out / "bench"
    given.part = () if given.only_minutes else given.part or PARTS
    return given


def planned(given: argparse.Namespace) -> Plan:
    """The plan for the given options."""
    plan = QUICK if given.quick else Plan()
    size = Size(given.users, 10 * given.users) if given.users else plan.size
    return replace(
        plan,
        size=size,
        backlog=given.backlog or plan.backlog,
        rates=tuple(given.rate or plan.rates),
        rate_s=given.seconds or plan.rate_s,
        starts=(*plan.starts, *(Size(users, 10 * users) for users in given.start)),
    )


def main(arguments: list[str]) -> int:
    """Measure, print, write; return 1 if a worker logged an error."""
    ref, rest = against.split(arguments)
    if ref is not None:
        return against.main([ref, "--e2e", *rest])
    given = parse(arguments)
    end_well()
    errors: list[str] = []
    if not given.page:
        given.cache.mkdir(parents=True, exist_ok=True)
        console = Console() if sys.stdout.isatty() else Console(width=170)
        # Parts that are not measured now keep their earlier results.
        found: Row = report.read(RESULTS, given.out) or {}

        def show(part: str, row: Row) -> None:
            found[part] = row
            report.save(RESULTS, found, given.out)
            report.print_table(part, *e2e_figures.TABLES[part](row), console)

        with console.status("") as status:
            say = status.update if console.is_terminal else lines(console)
            errors = measure(planned(given), given, show, say)
        report.print_table("cost per event", *e2e_figures.cost_table(found), console)
        report.print_table("µs per event by stage (share of a core)", *e2e_figures.stage_table(found), console)
        report.print_table(
            "µs of processor per event by thread (share of a core)", *e2e_figures.thread_table(found), console
        )
        for part in e2e_figures.TABLES:
            if part in found:
                console.print(f"{part}: {e2e_figures.ran_on(found[part])}")
        console.print(str(given.out / RESULTS))
        for error in errors:
            console.print(f"ERROR: {error[:300]}")
    if given.write or given.page:
        write(given.out, report.DOCS / report.PAGE, given.note)
    return int(bool(errors))


def lines(console: Console) -> Say:
    """Return a function that prints progress; without a terminal at most one line per interval."""
    last_s = float("-inf")

    def say(what: str) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= EVERY_S:
            last_s = time.monotonic()
            console.print(what)

    return say


def write(build: Path, page: Path, note: str) -> None:
    """Write the results in build/ into their section of the page; the rest of the page stays."""
    found = report.read(RESULTS, build)
    if found is None:
        sys.exit(f"{build / RESULTS} does not exist: run the benchmark without --page first")
    template = (Path(__file__).parent / "e2e_page.md").read_text(encoding="utf-8")
    text = report.with_section(page.read_text(encoding="utf-8"), e2e_figures.page(found, template, note))
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
