"""The benchmark's outside opponent: Pathway on the follow stream of `flat`, in the same run as the shard.

`python -m tests.bench.opponent` installs the opponent into an environment of its own under build/ (Pathway is under the
Business Source License 1.1; it is no part of this project), and measures in turn the shard, the opponent, and the shard
again. They compute different things, which the table states.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console

from graphstate.types import Kind, Mutation
from model.artifact import Artifact
from tests.bench import further, report, system
from tests.bench.workloads import Follows, Size, generated

DEGREES, PAGERANK = "degrees", "pagerank"
"""What `opponent_pathway.py` computes: it runs in another environment and imports nothing from here."""
PACKAGE = "pathway==0.33.0"
RESULTS = "bench-opponent.json"
THREADS = (1, 2)
"""Worker threads of the opponent: each number is measured."""
UPDATES = 400_000
"""Exported updates: more than either engine needs."""
START_S = 1_800.0
OURS = (
    "reach by a two-layer GATv2 network over seven relations, features, percentiles, set-valued; committed to RocksDB"
)
THEIRS = {
    DEGREES: "followers of each user, as a sum of changes; in memory",
    PAGERANK: "PageRank in 5 rounds of integers; in memory",
}


def environment(folder: Path, console: Console) -> Path:
    """Install the opponent once; return its Python."""
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        console.print(f"installing {PACKAGE} into {folder}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PACKAGE, "numpy"], check=True)
        (folder / "installed").write_text(PACKAGE, encoding="utf-8")
    return python


def pair(one: Mutation) -> tuple[int, int, int]:
    """A follow or unfollow as (source, target, 1 or −1)."""
    return int(one.user[1:]), int(one.other[1:]), 1 if one.kind == Kind.FOLLOW else -1


def export(workload: Follows, folder: Path, updates: int = UPDATES) -> None:
    """Write the base and the first updates as arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    source, target = np.divmod(workload.edges(), workload.size.users)
    np.save(folder / "base.npy", np.stack([source, target, np.ones_like(source)], axis=1))
    np.save(folder / "updates.npy", np.array([pair(one) for one in islice(workload.updates(), updates)], np.int64))


def ours(workload: Follows, batch: int, slice_s: float, cache: Path, say: system.Say) -> report.Row:
    """Whole steps of the shard."""
    with system.loaded(workload, Artifact.default(), cache, say) as shard:
        stream = workload.updates()
        system.measure(shard, workload, stream, batch, 0.0, 2)
        cell = system.measure(shard, workload, stream, batch, slice_s, 3)
    if cell is None:
        raise RuntimeError("a generated stream does not end")
    return line("Groundswell", OURS, 1, workload.size, batch, cell.whole_s)


def theirs(python: Path, what: str, workload: Follows, batch: int, threads: int, slice_s: float, folder: Path) -> Any:
    """Run the opponent; return what it printed."""
    script = Path(__file__).with_name("opponent_pathway.py")
    command = [str(python), str(script), what, str(folder), str(batch), str(slice_s)]
    variables = {**os.environ, "PATHWAY_THREADS": str(threads)}
    done = subprocess.run(
        command, env=variables, cwd=folder, capture_output=True, text=True, timeout=START_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the opponent ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if what == DEGREES:
        fed = np.load(folder / "updates.npy")[: batch * found["fed"], 2]
        expected = workload.size.follows + int(fed.sum())
        if found["sum"] != expected:
            raise RuntimeError(f"the opponent counted {found['sum']:,} live follows instead of {expected:,}")
    return found


def line(name: str, computes: str, threads: int, size: Size, batch: int, seconds: list[float]) -> report.Row:
    """One row of the table."""
    return {
        "engine": name, "computes": computes, "threads": str(threads), "users": f"{size.users:,}",
        "follows": f"{size.follows:,}", "batch": f"{batch:,}", "steps": len(seconds),
        "updates /s": round(batch / median(seconds)), "ms a step": round(median(seconds) * 1e3, 2),
    }  # fmt: skip


def compare(what: str, size: Size, given: argparse.Namespace, python: Path, say: system.Say) -> list[report.Row]:
    """The shard, the opponent with each number of threads, and the shard again."""
    workload = generated("flat", size)
    assert isinstance(workload, Follows)
    folder = given.out / "opponent-stream" / f"{size.users}"
    export(workload, folder)
    rows = [ours(workload, given.batch, given.slice_s, given.cache, say)]
    for threads in THREADS:
        say(f"Pathway, {what}, {threads} thread(s)")
        found = theirs(python, what, workload, given.batch, threads, given.slice_s, folder)
        step_s = [found["seconds"] / found["fed"]] * found["fed"]
        rows.append(line(f"Pathway {found['version']}", THEIRS[what], threads, size, given.batch, step_s))
    return [*rows, ours(workload, given.batch, given.slice_s, given.cache, say)]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="tests.bench.opponent", description=__doc__)
    parser.add_argument("--users", type=int, default=100_000, help="users for the degree counts; ten follows each")
    parser.add_argument("--rank-users", type=int, default=10_000, help="users for PageRank; ten follows each")
    parser.add_argument("--batch", type=int, default=1_000, help="updates per micro-batch")
    parser.add_argument("--slice-s", type=float, default=20.0, help="seconds for each engine")
    parser.add_argument("--out", type=Path, default=report.BUILD, help="folder for the results")
    parser.add_argument("--cache", type=Path, help="folder for the loaded base graphs")
    given = parser.parse_args(arguments)
    given.out = given.out.resolve()
    given.cache = given.cache or given.out / "bench"
    return given


def main(arguments: list[str]) -> int:
    """Measure, print, save."""
    given = parse(arguments)
    further.one_thread()
    given.cache.mkdir(parents=True, exist_ok=True)
    console = Console(width=170) if not sys.stdout.isatty() else Console()
    python = environment(given.out / "opponent", console)
    rows: list[report.Row] = []
    size = Size(given.users, 10 * given.users)
    with console.status("") as status:
        for what, users in ((DEGREES, given.users), (PAGERANK, given.rank_users)):
            rows += compare(what, Size(users, 10 * users), given, python, status.update)
            report.save(RESULTS, {"about": further.about(asdict(size)), "rows": rows}, given.out)
    report.print_table("the same follow stream", list(rows[0]), [list(row.values()) for row in rows], console)
    console.print(str(given.out / RESULTS))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
