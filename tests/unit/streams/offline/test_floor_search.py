"""The floor of an artifact: staleness counted right, the choice on real graphs and fits, and what it ends in."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.types import Kind, Mutation
from model.artifact import Artifact
from model.config import ModelConfig
from model.simulation.stream import Simulation
from model.training.fitting import TrainingPlan
from model.training.floor_selection import FLOORS, choose
from model.training.run import train
from streams import cli
from streams.messages.events import from_row
from streams.messages.files import event_files
from streams.offline.dataset import Staleness, build, plan
from streams.offline.floor_search import checkpoint_path, choose_floor
from streams.shard.graph_view import graph_spec

pytestmark = pytest.mark.slow

SMALL = ModelConfig(hidden=4, heads=1, head_hidden=4)
PLAN = TrainingPlan(epochs=1, threads=1)


def town(users: int, days: int) -> list[Mutation]:
    """Return a generated stream, in order of time."""
    rows = Simulation(users, min(4, users // 10), 5, posts_per_day=0.5).events(days)
    return sorted((from_row(row) for row in rows), key=lambda m: m.time)


def read_of(twin: NaiveGraph) -> dict[tuple[int, str], tuple[int, ...]]:
    """Return the propagated features of every node, without nodes whose features are all zero."""
    snapshot = twin.snapshot()
    return {
        (kind, name): tuple(row)
        for kind, names in enumerate(snapshot.ids)
        for name, row in zip(names, snapshot.propagated[kind].tolist(), strict=True)
        if any(row)
    }


@pytest.mark.parametrize("floor", [1, 4])
def test_staleness_equals_a_plain_recount(floor: int) -> None:
    """It counts nodes of the naive twin that differ between batches of 100, over the last half of the events."""
    config, events = ModelConfig(floor=floor), town(80, 10)
    until = events[-1].time
    times = plan(
        np.array([m.time for m in events if m.kind == Kind.CREATE], np.int64), until, config.horizon_s * 1_000_000, 2
    ).times
    ends = [sum(m.time <= time for m in events) for time in (*times, until)]
    twin = NaiveGraph(graph_spec(config, retention_s=0, lateness_s=0))
    done, changed = len(events) // 2, 0
    twin.apply(events[:done])
    begin, before = done, read_of(twin)
    assert len(events) - begin > 300
    while done < len(events):
        end = min([done + 100, *(end for end in ends if end > done)])
        twin.apply(events[done:end])
        after = read_of(twin)
        changed += sum(before.get(node) != after.get(node) for node in before.keys() | after.keys())
        done, before = end, after
    counted = build(events, config, until, snapshots=2, staleness=True).stale
    assert counted == pytest.approx(1000 * changed / (len(events) - begin))
    assert changed > 20


def test_staleness_starts_after_the_first_half() -> None:
    """A large batch ends where the count starts; changes before it do not count."""
    counted = Staleness(1_000)
    assert (counted.size(0), counted.size(499), counted.size(500)) == (500, 1, 100)
    rows = np.arange(7)
    counted.count(0, 500, [rows, rows, rows])
    assert counted.per_1000_events == 0
    counted.count(500, 100, [rows, rows[:2], rows[:0]])
    counted.count(600, 100, [rows[:1], rows[:0], rows[:0]])
    assert counted.per_1000_events == 50


def test_staleness_is_counted_only_on_request() -> None:
    """The graph is the same with and without the count."""
    events = town(80, 10)
    plain, counted = (build(events, SMALL, events[-1].time, snapshots=2, staleness=count) for count in (False, True))
    assert plain.stale is None
    assert counted.stale is not None
    for expected, actual in zip(plain.snapshots, counted.snapshots, strict=True):
        np.testing.assert_array_equal(expected.graph.own, actual.graph.own)
        for name, values in expected.graph.x.items():
            np.testing.assert_array_equal(values, actual.graph.x[name])
        for name, edges in expected.graph.edges.items():
            assert sorted(edges.T.tolist()) == sorted(actual.graph.edges[name].T.tolist())


def test_every_floor_is_tried_and_one_is_trained(tmp_path: Path) -> None:
    """A lower floor makes more nodes stale; the artifact equals a training with the chosen floor, also if resumed."""
    events = town(300, 14)
    run = partial(build, events, until=events[-1].time, snapshots=4, held_out=0.1)
    lines: list[str] = []
    search = partial(choose_floor, partial(run, staleness=True), SMALL, 3, PLAN, tmp_path)
    chosen = search(lines.append)
    stale = [trial.stale for trial in chosen.trials]
    assert [trial.floor for trial in chosen.trials] == list(FLOORS)
    assert stale == sorted(stale, reverse=True)
    assert stale[0] > stale[-1] > 0
    floor = choose(chosen.trials).floor
    assert chosen.config.floor == chosen.searched.artifact.config.floor == floor
    assert f"floor {floor} is selected" in lines
    assert all(checkpoint_path(tmp_path, tried).is_file() for tried in FLOORS)

    artifact = train(chosen.dataset.snapshots, chosen.config, 3, plan=PLAN, searched=chosen.searched)
    assert artifact.config.floor == floor
    assert artifact.version == train(chosen.dataset.snapshots, chosen.config, 3, plan=PLAN).version
    plain = run(chosen.config)
    np.testing.assert_array_equal(chosen.dataset.final.x["user"], plain.final.x["user"])

    resumed: list[str] = []
    assert search(resumed.append).trials == chosen.trials
    assert sum(line == "resumes after epoch 1" for line in resumed) == len(FLOORS)
    assert not any(line.startswith("epoch  1 of") for line in resumed)


def test_with_few_labels_the_floor_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A handful of users cannot distinguish floors: one line reports it, and the card has no table."""
    file, out = tmp_path / "town.jsonl", tmp_path / "artifact"
    assert cli.run(["simulate", "--out", str(file), "--users", "150", "--communities", "2", "--days", "14"]) == 0
    words = ["--floor", "auto", "--snapshots", "3", "--epochs", "1", "--held-out", "0.3", "--json"]
    assert cli.run(["train", str(file), "--out", str(out), *words]) == 0
    printed = capsys.readouterr()
    assert "too few to compare floors, 4 is kept" in printed.err
    summary, artifact = json.loads(printed.out.splitlines()[-1]), Artifact.load(out)
    assert (summary["floor"], summary["floors"], artifact.config.floor) == (4, [], 4)
    assert "## The floor" not in artifact.card
    assert not list(out.glob("unfinished*"))


def test_the_command_prints_every_floor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--floor auto: output and card have the same table, and the configuration has the chosen floor."""
    file, out = tmp_path / "town.jsonl", tmp_path / "artifact"
    event_files.write(file, map(event_files.row_of, town(300, 14)))
    words = ["--floor", "auto", "--snapshots", "4", "--epochs", "1", "--held-out", "0.1", "--json"]
    assert cli.run(["train", str(file), "--out", str(out), *words]) == 0
    printed = capsys.readouterr()
    summary, artifact = json.loads(printed.out.splitlines()[-1]), Artifact.load(out)
    assert [row["floor"] for row in summary["floors"]] == list(FLOORS)
    assert [row["floor"] for row in summary["floors"] if row["chosen"]] == [artifact.config.floor]
    assert summary["floor"] == artifact.config.floor
    for row in summary["floors"]:
        assert f"| {row['floor']} | {row['validation']} | {row['stale_per_1000_events']} |" in artifact.card
    assert printed.err.index("is selected") < printed.err.index(
        f"validation {summary['candidates'][0]['validation']:.4f}: "
    )
    assert "--floor auto" in artifact.card
    assert not list(out.glob("unfinished*"))


def test_the_command_trains_with_a_floor_that_serves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--floor 2 is in configuration and card, and the scores of a shard equal those of PyTorch Geometric."""
    file, out = tmp_path / "town.jsonl", tmp_path / "artifact"
    assert cli.run(["simulate", "--out", str(file), "--users", "150", "--communities", "2", "--days", "14"]) == 0
    words = ["--floor", "2", "--snapshots", "3", "--epochs", "1", "--held-out", "0.3"]
    assert cli.run(["train", str(file), "--out", str(out), *words]) == 0
    artifact = Artifact.load(out)
    assert artifact.config.floor == 2
    assert "--floor 2" in artifact.card
    assert "octaves from 2 on" in artifact.card
    capsys.readouterr()
    words = ["--model", str(out), "--out", str(tmp_path / "replayed"), "--reference", "--json"]
    assert cli.run(["replay", str(file), *words]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["model"] == artifact.version
    assert summary["reference_max_abs_error"] <= 1e-5


@pytest.mark.parametrize("floor", ["0", "-1", "2.5", "low", "1000000", "AUTO", "٣"])
def test_an_invalid_floor_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], floor: str
) -> None:
    """One line that lists valid values, exit code 2."""
    assert cli.run(["train", str(tmp_path / "none"), "--floor", floor, "--out", str(tmp_path / "artifact")]) == 2
    printed = capsys.readouterr().err
    assert "give auto, or a whole number from 1 to 999999" in printed
    assert printed.count("\n") == 1
