"""The benchmark: `python -m tests.bench` (make bench); docs/benchmarks.md describes what is measured."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from model.artifact import Artifact
from streams.settings.settings import Settings
from streams.shard.shard import Shard
from tests.bench import against, further, opponents, report, system
from tests.bench.workloads import FILES, GENERATED, RealFile, Size, Workload, generated

Rows = list[report.Row]
BATCHES = (1, 10, 100, 1_000, 10_000)
EXACT = 1e-5


@dataclass(frozen=True)
class Plan:
    """Sizes of a run, and seconds for a cell of the shard, of a baseline, and of the lower bound.

    bare: no baselines.
    """

    size: Size = field(default_factory=Size)
    batches: tuple[int, ...] = BATCHES
    slice_s: float = 2.5
    opponent_s: float = 1.5
    floor_s: float = 0.3
    least: int = 3
    bare: bool = False


QUICK = Plan(Size(10_000, 100_000), BATCHES[:-1], slice_s=0.4, opponent_s=0.2, floor_s=0.1)
TINY = Plan(Size(300, 3_000), batches=(1, 100), slice_s=0.05, opponent_s=0.02, floor_s=0.02)


def row(workload: str, layer: str, batch: int, seconds: float, **more: Any) -> report.Row:
    """Make one object of bench.json; fields that do not apply are null."""
    found = {"workload": workload, "layer": layer, "batch": batch, "updates_per_s": round(batch / seconds, 1)}
    found |= {"over_full": None, "over_affected": None, "p50_ms": round(seconds * 1e3, 4), "max_abs_error": None}
    return found | more


def rows_of(cell: system.Cell, full: opponents.Full | None, affected_s: float | None) -> Iterator[report.Row]:
    """Make the objects of a cell's engine and whole step; without baselines their columns are null."""
    for layer, all_s in ((report.ENGINE, cell.engine_s), (report.STORED, cell.whole_s)):
        seconds = median(all_s)
        spread: dict[str, Any] = {"max_ms": round(max(all_s) * 1e3, 4), "steps": len(all_s)}
        if full is not None and affected_s is not None:
            spread |= {
                "over_full": round(full.seconds / seconds, 3),
                "over_affected": round(affected_s / seconds, 3),
                "max_abs_error": full.max_abs_error,
            }
        yield row(cell.workload, layer, cell.batch, seconds, **spread)


def baselines(shard: Shard, workload: Workload, cells: list[system.Cell], plan: Plan, say: system.Say) -> Rows:
    """All rows of a workload with its baselines."""
    say(f"{workload.name}: full pass")
    full = opponents.full_pass(shard)
    opponent = opponents.Affected(shard)
    rows: Rows = []
    for cell in cells:
        say(f"{workload.name}: affected only, batches of {cell.batch:,}")
        affected_s, extraction_s = opponents.affected_s(opponent, cell, plan.opponent_s)
        events = workload.batch(workload.updates(), cell.batch)
        rows += rows_of(cell, full, affected_s)
        rows.append(row(cell.workload, report.FULL, cell.batch, full.seconds))
        extraction_ms = round(extraction_s * 1e3, 4)
        rows.append(row(cell.workload, report.AFFECTED, cell.batch, affected_s, extraction_ms=extraction_ms))
        rows.append(row(cell.workload, report.FLOOR, cell.batch, opponents.floor_s(events, plan.floor_s)))
    return rows


def stages_of(cell: system.Cell) -> report.Row:
    """Means of a step by stage: milliseconds, and µs of processor per event; the median number of rows by layer."""
    steps = len(cell.whole_s)
    ms = {stage: round(seconds / steps * 1e3, 4) for stage, seconds in cell.stages.items()}
    us = {stage: round(seconds / cell.processor_events * 1e6, 3) for stage, seconds in cell.processor.items()}
    frontier = [median(rows[layer] for rows in cell.frontier) for layer in (0, 1)]
    return {"workload": cell.workload, "batch": cell.batch, "ms": ms, "processor_us": us, "frontier": frontier}


def measure(workload: Workload, plan: Plan, cache: Path, say: system.Say) -> tuple[Rows, Rows]:
    """All rows of a workload, and its stages."""
    artifact = Artifact.default()
    with system.loaded(workload, artifact, cache, say) as shard:
        stream = workload.updates()
        system.measure(shard, workload, stream, min(plan.batches[-1], 100), 0.0, 2)  # warm-up, not measured
        cells = []
        for batch in plan.batches:
            say(f"{workload.name}: batches of {batch:,}")
            cell = system.measure(shard, workload, stream, batch, plan.slice_s, plan.least)
            if cell is not None:
                cells.append(cell)
        if plan.bare:
            rows = [one for cell in cells for one in rows_of(cell, None, None)]
        else:
            rows = baselines(shard, workload, cells, plan, say)
    return rows, [stages_of(cell) for cell in cells]


def chosen(given: argparse.Namespace, size: Size) -> tuple[list[Workload], list[str]]:
    """The workloads to run, and the names of missing files."""
    names = given.workload or (GENERATED if given.quick or given.tiny else (*GENERATED, *FILES))
    found: list[Workload] = []
    missing = []
    for name in names:
        if name not in FILES:
            found.append(generated(name, size))
            continue
        path = given.data / "events" / f"{name}.parquet"
        if path.exists():
            found.append(RealFile(path))
        else:
            missing.append(name)
    return found, missing


def bench(given: argparse.Namespace, plan: Plan, console: Console, say: system.Say) -> bool:
    """Run the suite; return whether everything was exact."""
    about = further.about(asdict(plan.size))
    workloads, missing = chosen(given, plan.size)
    for name in missing:
        console.print(f"{name}: skipped, {given.data / 'events'} has no {name}.parquet (see --data)")
    rows: Rows = []
    stages: Rows = []
    for workload in workloads:
        some, by_stage = measure(workload, plan, given.cache, say)
        rows += some
        stages += by_stage
        report.save("bench.json", rows, given.out)
        report.save("bench-about.json", about | {"stages": stages, "missing": missing}, given.out)
    say("")
    report.print_table(
        "updates per second, and how many times longer the baselines take", report.RATIOS, report.ratios(rows), console
    )
    if given.profile:
        report.print_table("milliseconds of a step by stage", *report.stage_table(stages), console)
        report.print_table("µs of processor per event by stage", *report.processor_table(stages), console)
    console.print(f"{report.ran_on(about)}\n{given.out / 'bench.json'}")
    return all(one["max_abs_error"] is None or one["max_abs_error"] <= EXACT for one in rows)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small graphs, under a minute")
    parser.add_argument("--tiny", action="store_true", help="very small graphs, as a smoke test")
    parser.add_argument(
        "--workload", action="append", help=f"one of {', '.join((*GENERATED, *FILES))}; may be repeated"
    )
    parser.add_argument("--users", type=int, help="users of the generated graphs")
    parser.add_argument("--follows", type=int, help="follows of the generated graphs")
    parser.add_argument("--batch", type=int, action="append", help="updates per micro-batch; may be repeated")
    parser.add_argument("--slice-s", type=float, help="seconds per workload and batch size")
    parser.add_argument("--profile", action="store_true", help="also print seconds and processor time by stage")
    parser.add_argument("--bare", action="store_true", help="measure the shard alone, without baselines or errors")
    parser.add_argument(
        "--exact", action="store_true", help="instead compare 100,000 events of each workload with the reference"
    )
    parser.add_argument("--growth", action="store_true", help="instead measure other numbers of users and windows")
    parser.add_argument("--hubs", action="store_true", help="instead measure celebrity, with deferred readers of hubs")
    parser.add_argument(
        "--spread-rows", type=int, default=Settings.model_fields["spread_rows"].default, help="with --hubs"
    )
    parser.add_argument("--memory", action="store_true", help="instead measure memory per user and per edge")
    parser.add_argument("--events", type=int, default=100_000, help="events of each workload, with --exact")
    parser.add_argument(
        "--largest", type=int, default=1_000_000, help="users of the largest graph, up to 3,000,000, with --growth"
    )
    parser.add_argument("--against", metavar="REF", help="measure a commit and this tree in turn: tests.bench.against")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md from the results in build/")
    parser.add_argument("--note", default="", help="a sentence on the circumstances, for the page")
    parser.add_argument("--page", action="store_true", help="only write the page, measure nothing")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with events/*.parquet")
    parser.add_argument("--out", type=Path, default=report.BUILD, help="folder for the results")
    parser.add_argument("--cache", type=Path, help="folder for the loaded base graphs")
    parser.add_argument("--resident", nargs=2, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    given.cache = given.cache or given.out / "bench"
    return given


def planned(given: argparse.Namespace) -> Plan:
    """The plan for the given options."""
    plan = TINY if given.tiny else QUICK if given.quick else Plan()
    size = Size(given.users or plan.size.users, given.follows or plan.size.follows)
    batches = tuple(given.batch) if given.batch else plan.batches
    slice_s = given.slice_s or plan.slice_s
    return Plan(size, batches, slice_s, plan.opponent_s, plan.floor_s, plan.least, given.bare)


def main(arguments: list[str]) -> int:
    """Measure, print, write; return 1 if a result was not exact."""
    ref, rest = against.split(arguments)
    if ref is not None:
        return against.main([ref, *rest])
    given = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    further.one_thread()
    if given.page:
        report.write_docs(given.out, note=given.note)
        return 0
    given.cache.mkdir(parents=True, exist_ok=True)
    console = Console(width=150) if not sys.stdout.isatty() else Console()
    with console.status("") as status:

        def say(what: str) -> None:
            status.update(what)

        plan = planned(given)
        if given.resident:
            return further.resident(Size(*given.resident), given.cache)
        if given.exact:
            fine = further.exact(chosen(given, plan.size)[0], given, plan.size, console, say)
        elif given.growth:
            fine = further.growth(given, plan.size, console, say)
        elif given.hubs:
            fine = further.hubs(given, plan.size, console, say)
        elif given.memory:
            fine = further.memory(given, plan.size, console, say)
        else:
            fine = bench(given, plan, console, say)
    if given.write:
        report.write_docs(given.out, note=given.note)
    if not fine:
        stalled = f", or a step longer than {further.STALL_MS:.0f} ms" if given.hubs else ""
        console.print(f"ERROR: the largest difference is above {EXACT}{stalled}")
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
