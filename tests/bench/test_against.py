"""Comparison with another commit, and with the outside opponent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from graphstate.types import Kind
from tests.bench import against, opponent, report
from tests.bench.against import BEFORE, NOW
from tests.bench.workloads import Follows, Size, generated
from tests.support import tidy

SMALL = Size(50, 300)


def test_the_commit_is_taken_out_of_the_arguments() -> None:
    """The other arguments are those of the benchmark; without a commit there is one line with the remedy."""
    assert against.split(["--batch", "1"]) == (None, ["--batch", "1"])
    assert against.split(["--batch", "1", "--against", "main", "--bare"]) == ("main", ["--batch", "1", "--bare"])
    with pytest.raises(SystemExit, match="needs a commit"):
        against.split(["--against"])


def test_a_commit_is_laid_out_beside_this_tree(tmp_path: Path) -> None:
    """Its files are there once, without the folder of a repository; an unknown commit gives one line."""
    inside = subprocess.run(
        ["git", "rev-parse", "--is-inside-work-tree"], cwd=tidy.ROOT, capture_output=True, check=False
    )
    if inside.returncode:
        pytest.skip("this copy has no repository")
    tree = against.checkout("HEAD", tmp_path)
    assert (tree / "tests" / "bench" / "run.py").exists()
    assert not (tree / ".git").exists()
    assert against.checkout("HEAD", tmp_path) == tree
    with pytest.raises(SystemExit, match="no-such-commit"):
        against.checkout("no-such-commit", tmp_path)


def test_ratios_are_those_of_medians(tmp_path: Path) -> None:
    """A figure that one side lacks is left out; the range is that of the ratios run by run."""
    rows = [
        {"workload": "flat", "layer": report.STORED, "batch": 1_000, "updates_per_s": 5_000.0},
        {"workload": "flat", "layer": report.FULL, "batch": 1_000, "updates_per_s": 1.0},
    ]
    report.save("bench.json", rows, tmp_path)
    stages = [{"workload": "flat", "batch": 1_000, "ms": {"apply": 38.0}}]
    report.save("bench-about.json", {"stages": stages}, tmp_path)
    found: dict[str, dict[against.Figure, list[float]]] = {BEFORE: {}, NOW: {}}
    against.collect(against.of_engine, tmp_path, found[BEFORE])
    assert found[BEFORE] == {
        ("flat", "1,000", "engine + RocksDB, events/s"): [5_000.0],
        ("flat", "1,000", "apply, µs/event"): [38.0],
    }
    figure = ("flat", "1,000", "engine + RocksDB, events/s")
    found[BEFORE] = {figure: [5_000.0, 4_000.0]}
    found[NOW] = {figure: [10_000.0, 12_000.0], ("flat", "1", "new"): [1.0]}
    columns, lines = against.table(found)
    assert len(columns) == len(lines[0])
    assert lines == [[*figure, 4_500.0, 11_000.0, "2.44 ×", "2.00 to 3.00"]]


def test_growth_is_one_plot_of_the_default_window() -> None:
    """Two lines: the engine alone and with RocksDB; other windows are left out."""
    rows = [
        {"workload": "flat", "users": users, "follows": 10 * users, "window": window, "engine /s": 2, "+ RocksDB /s": 1}
        for users, window in ((10, "16"), (100, "16"), (100, "4"))
    ]
    assert report.growth_plot(rows).count('id="flat: engine') == 2


def test_the_opponent_gets_the_same_stream(tmp_path: Path) -> None:
    """Base and updates as numbers, in order, with the sign of each."""
    workload = generated("flat", SMALL)
    assert isinstance(workload, Follows)
    opponent.export(workload, tmp_path, 100)
    base = [opponent.pair(one) for one in workload.base()]
    np.testing.assert_array_equal(np.load(tmp_path / "base.npy"), base)
    stream, updates = workload.updates(), np.load(tmp_path / "updates.npy")
    assert len(updates) == 100
    for row in updates.tolist():
        one = next(stream)
        assert tuple(row) == (int(one.user[1:]), int(one.other[1:]), 1 if one.kind == Kind.FOLLOW else -1)
