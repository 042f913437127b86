"""Benchmark of the engine's backends: `python -m tests.bench.gpu` (make bench-gpu).

Needs only torch, PyTorch Geometric, NumPy and numba, so that it runs on a bare machine with a GPU. Without a GPU the
torch backend runs on the CPU: that tests its function, its speed there means nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.artifact import untrained
from model.config import TYPES, USER, ModelConfig
from model.engine.cpu import Backend
from model.engine.device_sample import SampleGraph
from model.engine.device_selection import backend, compute_all, gpus, seconds
from model.network.pyg_reference import reference
from model.types import Float32s, Int64s

EXACT = 1e-5
FRONTIERS = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
KINDS = range(len(TYPES))
OURS = TYPES.index(USER)


@dataclass(frozen=True)
class Plan:
    """Sizes of a run."""

    device: str
    users: int
    frontiers: tuple[int, ...]
    tries: int


def error(engine: Backend, graph: SampleGraph, expected: tuple[dict[str, Float32s], Float32s, Float32s]) -> float:
    """Largest difference of any embedding or score from a full pass."""
    hidden1, hidden2, score = expected
    users = graph.rows(OURS)
    pairs = [(hidden1[name], engine.hidden1[kind][: graph.rows(kind)]) for kind, name in enumerate(TYPES)]
    pairs += [(hidden2, engine.hidden2[:users]), (score, engine.score[:users])]
    return max(float(np.abs(one - other).max()) for one, other in pairs)


def differing(engine: Backend, graph: SampleGraph) -> int:
    """Number of rows that get other bits when computed again in batches of other sizes; 0 if the backend is exact."""
    random, found = np.random.default_rng(4), 0
    for size in (1, 7, 100, 5_000):
        for kind in KINDS:
            rows = random.permutation(graph.rows(kind))[:size]
            asked = [rows if other == kind else rows[:0] for other in KINDS]
            found += sum(map(len, engine.layer1(graph, asked)))
        found += len(engine.layer2(graph, random.permutation(graph.rows(OURS))[:size]))
    return found


def churn(engine: Backend, graph: SampleGraph) -> None:
    """Change windows and features, then recompute the stale rows by requesting all rows."""
    for kind in KINDS:
        rows = graph.random.permutation(graph.rows(kind))
        graph.rewire(kind, rows[: len(rows) // 20])
        graph.refeature(kind, rows[-(len(rows) // 20) :])
    engine.load_features(graph, graph.all_rows())
    engine.layer1(graph, graph.all_rows())
    engine.layer2(graph, graph.all_rows()[OURS])
    engine.head(graph, graph.all_rows()[OURS])


def timed(engine: Backend, graph: SampleGraph, plan: Plan) -> dict[int, float]:
    """Median seconds of the second layer, by size of the frontier."""
    random = np.random.default_rng(5)
    some: dict[int, Int64s] = {size: np.sort(random.permutation(plan.users)[:size]) for size in plan.frontiers}
    return {size: seconds(engine, graph, rows, plan.tries) for size, rows in some.items()}


def above(one: dict[int, float], core: dict[int, float]) -> int | None:
    """The smallest frontier from which the device is always faster than one core; None if there is none."""
    won = None
    for size in sorted(one, reverse=True):
        if one[size] >= core[size]:
            break
        won = size
    return won


def machine(device: str) -> str:
    """A description of the machine."""
    core = next(
        (line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.machine(),
    )
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else "no GPU"
    return f"{gpu}; {core}, {os.cpu_count()} cores; Python {platform.python_version()}, torch {torch.__version__}"


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def run(plan: Plan) -> dict[str, Any]:
    """Run everything; return the results as they are written."""
    config = ModelConfig()
    weights = untrained(config, 1).weights
    made: dict[str, Backend] = {
        "one core": backend("cpu")(config, weights),
        plan.device: _torch(plan.device, config, weights),
    }
    rows: list[dict[str, Any]] = []
    took: dict[str, dict[int, float]] = {}
    for name, engine in made.items():
        # All backends get the same graph and the same changes.
        graph = SampleGraph(config, plan.users)
        compute_all(engine, graph)
        churn(engine, graph)
        worst, others = error(engine, graph, reference(weights, config, graph.input())), differing(engine, graph)
        took[name] = timed(engine, graph, plan)
        rows += [
            {
                "backend": name, "layer": 2, "frontier": size, "rows_per_s": round(size / each_s),
                "p50_ms": round(each_s * 1e3, 4), "max_abs_error": worst, "rows_with_other_bits": others,
                "memory_bytes": engine.memory_bytes,
            }
            for size, each_s in took[name].items()
        ]  # fmt: skip
    core, device = took.values()
    return {
        "machine": machine(plan.device),
        "users": plan.users,
        "faster_from_rows": above(device, core),
        "over_one_core": {str(size): round(core[size] / device[size], 2) for size in plan.frontiers},
        "products_in_order": getattr(made[plan.device], "in_order", 0),
        "rows": rows,
    }


def _torch(device: str, config: ModelConfig, weights: dict[str, Float32s]) -> Backend:
    from model.engine.torch_backend import TorchEngine

    return TorchEngine(config, weights, "cpu" if device == "torch on the CPU" else device)


def table(result: dict[str, Any]) -> str:
    """The results as text."""
    lines = [f"{result['machine']}; {result['users']:,} users", ""]
    lines.append(f"{'backend':>16} {'frontier':>9} {'rows/s':>12} {'p50 ms':>10} {'error':>9} {'other bits':>10}")
    lines += [
        f"{row['backend']:>16} {row['frontier']:>9,} {row['rows_per_s']:>12,} {row['p50_ms']:>10.3f} "
        f"{row['max_abs_error']:>9.1e} {row['rows_with_other_bits']:>10}"
        for row in result["rows"]
    ]
    ratios = ", ".join(f"{int(size):,}: {ratio}×" for size, ratio in result["over_one_core"].items())
    won = result["faster_from_rows"]
    lines += ["", f"over one core: {ratios}", "never faster" if won is None else f"faster from {won:,} rows on"]
    return "\n".join(lines)


def main() -> int:
    """Run, print, write; return 1 if a result was not exact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="cuda, cuda:N or cpu; the GPU if there is one")
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--tries", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a small graph and small frontiers")
    parser.add_argument("--out", type=Path, default=Path("build/bench-gpu.json"))
    given = parser.parse_args()
    device = given.device or ("cuda" if gpus() else "cpu")
    device = "torch on the CPU" if device == "cpu" else device
    if device == "torch on the CPU":
        torch.set_num_threads(1)  # one core against one core
    plan = Plan(device, given.users, tuple(size for size in FRONTIERS if size <= given.users), given.tries)
    result = run(Plan(device, 1_500, (10, 100, 1_000), 3) if given.quick else plan)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))  # noqa: T201 - a command prints
    exact = all(row["max_abs_error"] <= EXACT and row["rows_with_other_bits"] == 0 for row in result["rows"])
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
