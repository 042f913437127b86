"""The longer runs of the benchmark: exactness after many events, growth with users and windows, memory."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from itertools import cycle, product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console

from model.artifact import Artifact
from model.engine.cpu import Engine
from model.engine.torch_backend import TorchEngine
from streams.shard.shard import Shard
from streams.worker.process_memory import collect_rarely
from tests.bench import opponents, report, system
from tests.bench.workloads import Follows, Size, Workload, generated
from tests.support import tidy

EXACT = 1e-5
SIZES = (*[1] * 10, *[10] * 10, *[100] * 10, *[1_000] * 3, 10_000)
"""Sizes of the micro-batches with --exact, repeated."""
WINDOWS = (4, 16, 64, 0)
GROWING = (10_000, 100_000, 1_000_000, 3_000_000)
"""Users with --growth, up to --largest."""
COMPARED = 1_000_000
"""Users up to which --growth compares with PyTorch Geometric, which keeps 256 bytes for each window edge."""
GROWN = 1_000
"""Updates per micro-batch with --growth."""
SLICE_S = 10.0
HUB_BATCHES = (10, 100, 1_000)
LEAST = 5
STALL_MS = 250.0
"""Limit for a step with --hubs where hub readers are deferred."""


def one_thread() -> None:
    """Let torch compute on one thread, and run the garbage collector as rarely as a worker does."""
    torch.set_num_threads(1)
    collect_rarely()


def about(size: dict[str, Any]) -> dict[str, Any]:
    """Header of a run's results."""
    return {"machine": report.machine(), "threads": torch.get_num_threads(), "size": size}


def save(name: str, rows: list[report.Row], given: argparse.Namespace, size: Size) -> None:
    """Save the rows measured so far."""
    report.save(f"bench-{name}.json", {"about": about(asdict(size)), "rows": rows}, given.out)


def finish(name: str, rows: list[report.Row], given: argparse.Namespace, size: Size, console: Console) -> None:
    """Save and print the rows of a run."""
    save(name, rows, given, size)
    report.print_table(name, list(rows[0]), [list(row.values()) for row in rows], console)
    console.print(str(given.out / f"bench-{name}.json"))


def engines() -> dict[str, system.MakeBackend]:
    """Every engine that runs on this machine."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"compiled": Engine, f"torch, {device}": partial(TorchEngine, device=device)}


def exact(workloads: list[Workload], given: argparse.Namespace, size: Size, console: Console, say: system.Say) -> bool:
    """Compare many events of each workload with the reference, with the packaged artifact and with peaked attention."""
    artifact = Artifact.default()
    rows: list[report.Row] = []
    weights = {"trained": artifact, "attention × 25": system.peaked(artifact)}
    workloads = workloads if given.workload else [*workloads, generated("mixed", size)]
    for engine, workload, name in product(engines(), workloads, weights):
        what, backend = f"{workload.name}, {engine}, {name}", engines()[engine]
        with system.loaded(workload, artifact, given.cache, say, weights=weights[name], backend=backend) as shard:
            events, worst = play(shard, workload, given.events, what, say)
        row = {"workload": workload.name, "engine": engine, "weights": name, "events": f"{events:,}"}
        rows.append({**row, **worst._asdict()})
        save("exact", rows, given, size)
    finish("exact", rows, given, size, console)
    return all(row["max_abs_error"] <= EXACT for row in rows)


def play(shard: Shard, workload: Workload, events: int, name: str, say: system.Say) -> tuple[int, opponents.Errors]:
    """Process events in micro-batches of all sizes; return their number and the largest errors at any quarter."""
    cell, stream = system.Cell(workload.name, 0), workload.updates()
    done, worst = 0, opponents.Errors(0.0, 0.0)
    checks = [events * part // 4 for part in range(4, 0, -1)]
    for size in cycle(SIZES):
        batch = workload.batch(stream, min(size, max(1, events - done)))
        if batch:
            system.step(shard, cell, batch)
        done += len(batch)
        if done >= checks[-1] or not batch:
            checks.pop()
            say(f"{name}: {done:,} events, comparing with the reference")
            worst = opponents.Errors(*map(max, worst, opponents.errors(shard)))
        if done >= events or not batch:
            return done, worst
    raise AssertionError


def growth(given: argparse.Namespace, size: Size, console: Console, say: system.Say) -> bool:
    """Throughput at other numbers of users with the mean degree of `size`, and with other windows."""
    artifact = Artifact.default()
    rows: list[report.Row] = []
    degree = size.follows // size.users
    cases = [(users, artifact.config.window) for users in GROWING if users <= given.largest]
    cases += [(min(size.users, given.largest), window) for window in WINDOWS if window != artifact.config.window]
    for users, window in cases:
        made = Artifact(artifact.weights, replace(artifact.config, window=window))
        workload = Follows("flat", Size(users, users * degree), exponent=0.62)
        rows.append(_grown(workload, made, given, say))
        save("growth", rows, given, size)
    finish("growth", rows, given, size, console)
    return all(row["max_abs_error"] is None or row["max_abs_error"] <= EXACT for row in rows)


def _grown(workload: Follows, artifact: Artifact, given: argparse.Namespace, say: system.Say) -> report.Row:
    """One row of `growth`."""
    users, window, before = workload.size.users, artifact.config.window, resident_bytes()
    with system.loaded(workload, artifact, given.cache, say) as shard:
        resident_gb = (resident_bytes() - before) / 1e9
        stream = workload.updates()
        say(f"{users:,} users, window {window}")
        system.measure(shard, workload, stream, GROWN, 0.0, 2)
        cell = system.measure(shard, workload, stream, GROWN, given.slice_s or SLICE_S, 5)
        if cell is None:
            raise RuntimeError("a generated stream does not end")
        error = opponents.full_pass(shard, 1).max_abs_error if users <= COMPARED else None
    return {
        "workload": workload.name, "users": users, "follows": workload.size.follows, "window": str(window),
        "engine /s": round(cell.per_s(cell.engine_s)), "+ RocksDB /s": round(cell.per_s(cell.whole_s)),
        "p50 ms": round(median(cell.whole_s) * 1e3, 1), "max ms": round(max(cell.whole_s) * 1e3, 1),
        "processor µs/event": round(sum(cell.processor.values()) / cell.processor_events * 1e6, 1),
        "rows 2": median(one[1] for one in cell.frontier), "memory GB": round(resident_gb, 2), "max_abs_error": error,
    }  # fmt: skip


def hubs(given: argparse.Namespace, size: Size, console: Console, say: system.Say) -> bool:
    """Steps of `celebrity` with and without deferred readers of hubs, and how long deferred readers wait."""
    workload, artifact = generated("celebrity", size), Artifact.default()
    rows: list[report.Row] = []
    for spread_rows, batch in product((0, given.spread_rows), HUB_BATCHES):
        with system.loaded(workload, artifact, given.cache, say, spread_rows=spread_rows) as shard:
            say(f"celebrity, {batch} updates, {spread_rows:,} readers of hubs per step")
            steps = _hub_steps(shard, workload, batch, given.slice_s or SLICE_S)
            rows.append({"rows per step": spread_rows, "batch": batch, **steps})
        save("hubs", rows, given, size)
    finish("hubs", rows, given, size, console)
    exact = all(row["max_abs_error"] <= EXACT for row in rows)
    return exact and all(row["longest ms"] <= STALL_MS for row in rows if row["rows per step"])


def _hub_steps(shard: Shard, workload: Workload, size: int, slice_s: float) -> report.Row:
    cell, stream, waits, most = system.Cell(workload.name, size), workload.updates(), [0.0], 0
    system.step(shard, cell, workload.batch(stream, size))
    cell, end = system.Cell(workload.name, size), perf_counter() + slice_s
    while perf_counter() < end or len(cell.whole_s) < LEAST:
        outcome = system.step(shard, cell, workload.batch(stream, size))
        most = max(most, outcome.waiting)
        waits += [outcome.waited_s] if outcome.waited_s else []
    while shard.staleness.hub_queue.waiting:
        system.step(shard, system.Cell(workload.name, 0), [])
    whole_ms, waits_ms = np.array(cell.whole_s) * 1e3, np.array(waits[1:] or [0.0]) * 1e3
    return {
        "steps": len(whole_ms), "p50 ms": round(float(np.median(whole_ms)), 1),
        "p99 ms": round(float(np.quantile(whole_ms, 0.99)), 1), "longest ms": round(float(whole_ms.max()), 1),
        "most waiting": most, "wait p50 ms": round(float(np.median(waits_ms))),
        "longest wait ms": round(float(waits_ms.max())),
        "max_abs_error": opponents.full_pass(shard, 1).max_abs_error,
    }  # fmt: skip


def memory(given: argparse.Namespace, size: Size, console: Console, say: system.Say) -> bool:
    """Memory per user at the given size, and per edge from there to twice as many follows.

    Each state is opened in its own process with malloc's defaults, after a tiny state that loads all libraries and
    compiled code: resident memory afterwards minus before.
    """
    rows = []
    for follows in (size.follows, 2 * size.follows):
        one = Size(size.users, follows)
        system.base_state(generated("flat", one), Artifact.default(), given.cache, say)
        say(f"opening {one.users:,} users, {one.follows:,} follows")
        command = [sys.executable, "-m", "tests.bench", "--resident", str(one.users), str(one.follows)]
        done = subprocess.run(
            [*command, "--cache", str(given.cache)], cwd=tidy.ROOT, check=True, stdout=subprocess.PIPE, text=True
        )
        rows.append({"users": one.users, "follows": one.follows, **json.loads(done.stdout)})
    slope = (rows[1]["rss_bytes"] - rows[0]["rss_bytes"]) / (rows[1]["follows"] - rows[0]["follows"])
    for row in rows:
        row["bytes per user"] = round(row["rss_bytes"] / row["users"])
        row["bytes per further edge"] = round(slope, 1)
    finish("memory", rows, given, size, console)
    return True


def resident_bytes() -> int:
    """Resident memory of this process; Linux only."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def resident(size: Size, cache: Path) -> int:
    """Print how much opening a loaded base adds to the resident memory of this process."""
    artifact = Artifact.default()
    with TemporaryDirectory(prefix="groundswell-bench-") as folder:
        system.open_shard(Path(folder) / "warm", artifact).close()
        before = resident_bytes()
        with system.loaded(generated("flat", size), artifact, cache, lambda _: None) as shard:
            found = {"rss_bytes": resident_bytes() - before}
            found["rocksdb_memtable_bytes"] = shard.reads.sizes()["memtable"]
            sys.stdout.write(json.dumps(found) + "\n")
    return 0
