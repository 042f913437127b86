"""Compare this working tree with another commit: both benchmarks in turn, in one run, and the ratio of each figure.

`python -m tests.bench.against REF -- --workload social --batch 1000` (make bench ARGS="--against REF ...") runs the
engine's benchmark, with `--e2e` the whole worker's (make bench-e2e ARGS="--against REF ..."). The commit is checked out
under build/against/ and run by its own benchmark with this tree's environment, so its dependencies must be installed
here. Each round runs the commit, this tree, this tree, the commit: a machine that slows down or speeds up evenly
favours neither.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from tests.bench import report
from tests.support import tidy

BEFORE, NOW = "before", "now"
ROUND = (BEFORE, NOW, NOW, BEFORE)
Figure = tuple[str, str, str]
"""What was measured, under which condition, and the name of the figure."""
LOCK = "requirements.lock"


def git(*arguments: str, cwd: Path = tidy.ROOT) -> str:
    """Run git and return its output."""
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def checkout(ref: str, folder: Path) -> Path:
    """The folder of a commit's files, made if it does not exist."""
    commit = git("rev-parse", "--verify", f"{ref}^{{commit}}")
    tree = folder / commit[:12]
    if not tree.exists():
        part = folder / f"{tree.name}.part"
        archive = subprocess.run(["git", "archive", commit], cwd=tidy.ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(part, filter="data")
        part.rename(tree)
    if (tree / LOCK).read_bytes() != (tidy.ROOT / LOCK).read_bytes():
        sys.stderr.write(f"{ref} has another {LOCK}: it runs with the libraries that are installed here\n")
    return tree


def run(tree: Path, module: str, arguments: list[str], out: Path, console: Console) -> None:
    """Run a tree's benchmark; its results go to `out`, its base graphs stay in that tree."""
    cache = ["--cache", str(tree / "build" / "bench")]
    if "--bare" in arguments and not knows(tree, module, "--bare"):
        arguments = [one for one in arguments if one != "--bare"]  # an older benchmark measures its baselines, too
    command = [sys.executable, "-m", module, *arguments, "--out", str(out), *cache]
    # The current folder comes before the installed packages, which are those of this tree.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        console.print(f"{tree.name}: {' '.join(command)} ended with {done.returncode}")
        console.print((done.stdout + done.stderr)[-2_000:])
        raise SystemExit(1)


def knows(tree: Path, module: str, option: str) -> bool:
    """Whether a tree's benchmark has an option."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=tree, capture_output=True, text=True, check=True
    )
    return option in done.stdout


def of_engine(out: Path) -> Iterator[tuple[Figure, float]]:
    """Events per second of the engine and the whole step, and milliseconds of each stage."""
    for row in report.read("bench.json", out):
        if row["layer"] in {report.ENGINE, report.STORED}:
            yield (row["workload"], f"{row['batch']:,}", f"{row['layer']}, events/s"), row["updates_per_s"]
    for row in report.read("bench-about.json", out)["stages"]:
        for stage, ms in row["ms"].items():
            yield (row["workload"], f"{row['batch']:,}", f"{stage}, µs/event"), ms * 1e3 / row["batch"]


def of_worker(out: Path) -> Iterator[tuple[Figure, float]]:
    """Throughput, processor time, freshness, and seconds to start of the whole worker."""
    found = report.read("bench-e2e.json", out)
    for name, row in (("backlog", found.get("throughput")), ("maximum", found.get("sustained"))):
        if row:
            yield ("worker", name, "events/s"), row["events_per_s"]
            yield ("worker", name, "processor µs/event"), row["cpu_us_per_event"]["w0"]
    for row in found.get("freshness", {}).get("rates", ()):
        rate = f"{row['rate']:,.0f}/s"
        yield ("worker", rate, "processor µs/event"), row["cpu_us_per_event"]["w0"]
        for name, ms in zip(("p50", "p99"), row["freshness_ms"], strict=False):
            if ms is not None:
                yield ("worker", rate, f"freshness {name}, ms"), ms
    for row in found.get("start", {}).get("states", ()):
        yield ("start", f"{row['users']:,} users", "s to /readyz"), row["ready_s"]
        yield ("start", f"{row['users']:,} users", "MB"), row["rss_mb"]


def table(found: dict[str, dict[Figure, list[float]]]) -> tuple[list[str], list[list[Any]]]:
    """A line for each figure that both have: both medians, the ratio now / before, and its range over the rounds."""
    rows = []
    for figure, values in found[NOW].items():
        before = found[BEFORE].get(figure, [])
        if before and median(before):
            pairs = [now / then for now, then in zip(values, before, strict=False) if then]
            spread = f"{min(pairs):.2f} to {max(pairs):.2f}" if pairs else "–"
            rows.append([*figure, median(before), median(values), f"{median(values) / median(before):.2f} ×", spread])
    return ["what", "at", "figure", "before", "now", "now / before", "by run"], rows


def compare(ref: str, given: argparse.Namespace, arguments: list[str], console: Console) -> int:
    """Run the rounds, print and save the table."""
    module, figures = ("tests.bench.e2e", of_worker) if given.e2e else ("tests.bench", of_engine)
    if not given.e2e:
        arguments = [*arguments, "--bare", "--data", str(given.data.resolve())]
    trees = {BEFORE: checkout(ref, given.out / "against"), NOW: tidy.ROOT}
    found: dict[str, dict[Figure, list[float]]] = {BEFORE: {}, NOW: {}}
    order = ROUND * given.rounds
    for number, which in enumerate(order):
        console.print(f"run {number + 1} of {len(order)}: {which} ({trees[which].name})")
        out = given.out / "against" / which
        run(trees[which], module, arguments, out, console)
        collect(figures, out, found[which])
    columns, rows = table(found)
    report.print_table(
        f"{git('rev-parse', '--short', ref)} and this tree, {given.rounds} round(s)", columns, rows, console
    )
    saved = {"before": ref, "arguments": arguments, "machine": report.machine(), "columns": columns, "rows": rows}
    console.print(str(report.save("bench-against.json", saved, given.out)))
    return 0


def collect(
    figures: Callable[[Path], Iterator[tuple[Figure, float]]], out: Path, into: dict[Figure, list[float]]
) -> None:
    """Add a run's figures."""
    for figure, value in figures(out):
        into.setdefault(figure, []).append(value)


def split(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Take `--against REF` out of a benchmark's arguments; None without it."""
    if "--against" not in arguments:
        return None, arguments
    at = arguments.index("--against")
    if at + 1 == len(arguments):
        sys.exit("--against needs a commit, such as main")
    return arguments[at + 1], arguments[:at] + arguments[at + 2 :]


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line; return the options, and the arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="tests.bench.against", description=__doc__)
    parser.add_argument("ref", help="the commit to compare with")
    parser.add_argument("--e2e", action="store_true", help="the whole worker instead of the engine")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of four runs")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with events/*.parquet")
    parser.add_argument("--out", type=Path, default=report.BUILD, help="folder for the results")
    given, rest = parser.parse_known_args(arguments)
    given.out = given.out.resolve()
    return given, [one for one in rest if one != "--"]


def main(arguments: list[str]) -> int:
    """Compare two trees."""
    given, rest = parse(arguments)
    console = Console(width=150) if not sys.stdout.isatty() else Console()
    return compare(given.ref, given, rest, console)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
