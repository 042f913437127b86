"""The benchmarks of the engine and its store: `python -m tests.bench.run` (make bench).

Everything is one thread: the engine's, PyTorch's and numba's; malloc keeps what it got, for everybody in the run.
Loaded base graphs are kept in build/bench: the first run takes some minutes more.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from tests import tidy

FOLDER = tidy.ROOT / "build" / "bench"
RESULT = tidy.ROOT / "build" / "bench.json"
DATA = tidy.ROOT.parent / "shared" / "data"
PAGE, PLOT = tidy.ROOT / "docs" / "benchmarks.md", tidy.ROOT / "docs" / "benchmarks.svg"
_ALIKE = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}
"""What the C library and the number libraries read when they are loaded."""


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10,000 users, shorter slices, no event files")
    parser.add_argument("--workload", action="append", help="one of them; several times: several (default: all)")
    parser.add_argument("--batch", type=int, action="append", help="a batch size; several times: several")
    parser.add_argument("--users", type=int, help="users of a generated graph (default: 100,000)")
    parser.add_argument("--follows", type=int, help="follows of its base (default: ten per user)")
    parser.add_argument("--slice", type=float, dest="slice_s", help="seconds of steps per batch size (default: 2)")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder with events/weibo.parquet, not in the project")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-opponents", action="store_true", help="the engine alone")
    parser.add_argument("--profile", action="store_true", help="also time by stage")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and its plot from build/bench.json")
    parser.add_argument("--note", default="", help="a sentence on the circumstances, for the page")
    return parser.parse_args()


def run(given: argparse.Namespace, console: Console) -> int:
    """Measure what was asked for; 1 if a result is not exact."""
    from model.artifact import Artifact
    from tests.bench import report
    from tests.bench.cells import BATCHES, measure
    from tests.bench.workloads import FILES, GENERATED, Size, make

    users = given.users or (10_000 if given.quick else 100_000)
    size = Size(users, given.follows or 10 * users)
    names = given.workload or (GENERATED if given.quick else (*GENERATED, *FILES))
    measured = []
    for name in names:
        workload = make(name, size, given.data, given.seed)
        if workload is None:
            console.print(f"{name}: left out, {given.data}/events/{name}.parquet is not there; say where with --data")
            continue
        found = measure(
            workload, Artifact.default(), FOLDER, console.print, batches=given.batch or BATCHES,
            slice_s=given.slice_s or (0.3 if given.quick else 2.0), opponents=not given.no_opponents,
        )  # fmt: skip
        measured.append(found)
        console.print(f"{name}: measured, largest error {found.max_abs_error:.1e}")
    rows = [row for one in measured for row in one.rows()]
    report.save(RESULT, rows)
    report.show(console, rows)
    if given.profile:
        report.show_stages(console, measured)
    if given.write:
        PAGE.write_text(report.page(PAGE.read_text(encoding="utf-8"), rows, given.note), encoding="utf-8")
        PLOT.write_text(report.plot(rows), encoding="utf-8")
    return int(any(one.max_abs_error > 1e-5 for one in measured))


def main() -> int:
    """Start anew with the same allocator and threads for everybody, unless that was done."""
    given = options()
    if any(os.environ.get(name) != value for name, value in _ALIKE.items()):
        os.execve(sys.executable, [sys.executable, "-m", "tests.bench.run", *sys.argv[1:]], {**os.environ, **_ALIKE})
    import torch

    torch.set_num_threads(1)
    return run(given, Console(width=None if sys.stdout.isatty() else 140))


if __name__ == "__main__":
    sys.exit(main())
