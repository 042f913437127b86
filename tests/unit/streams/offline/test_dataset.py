"""From events to snapshots and labels: what is refused, what does not leak, and the command as a whole."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graphstate.types import Kind, Mutation
from model.artifact import Artifact
from model.config import ModelConfig
from model.errors import TrainingError
from model.simulation.stream import Simulation
from streams import cli
from streams.messages.events import from_row
from streams.offline.dataset import Dataset, build, closed_posts, is_held_out, plan

DAY = 86_400 * 1_000_000
CONFIG = ModelConfig()


@pytest.fixture(scope="module")
def town() -> list[Mutation]:
    """Sixteen days of a small town."""
    return [from_row(row) for row in Simulation(200, 4, 5, posts_per_day=0.5).events(16)]


def times_of_posts(mutations: list[Mutation]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the times of the creates."""
    return np.array([m.time for m in mutations if m.kind == Kind.CREATE], np.int64)


def days(*values: float) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Convert days to µs."""
    return (np.array(values) * DAY).astype(np.int64)


def test_snapshots_leave_room_for_window_and_horizon() -> None:
    """With many posts, the window of the newest snapshot and the horizons of its posts end at the cut."""
    made = plan(days(*np.linspace(0, 29, 30_000)), 30 * DAY, 3 * DAY, 14)
    assert len(made.times) == 14
    assert made.times[-1] + made.window + 3 * DAY == 30 * DAY
    assert made.window == 3 * DAY


def test_a_thin_beginning_gets_no_snapshots() -> None:
    """A single post a year before the others changes neither snapshots nor window."""
    many = np.linspace(365, 395, 60)
    made = plan(days(0, *many), 396 * DAY, 3 * DAY, 5)
    assert made.times[0] > 365 * DAY
    assert made.window < 11 * DAY


def test_windows_grow_where_posts_are_few() -> None:
    """With few posts windows last up to four weeks or a third of the span; the newest one keeps more than half."""
    few = plan(days(*np.linspace(0, 29, 60)), 30 * DAY, 3 * DAY, 14)
    assert 9 * DAY < few.window <= 10 * DAY
    assert few.times[-1] + few.window * 3 / 5 + 3 * DAY == pytest.approx(30 * DAY, abs=10)
    assert plan(days(*np.linspace(0, 359, 60)), 360 * DAY, 3 * DAY, 14).window == pytest.approx(30 * DAY, rel=0.1)
    assert plan(days(*np.linspace(0, 239, 60)), 240 * DAY, 3 * DAY, 14).window == 28 * DAY


def test_events_in_which_no_horizon_has_closed_are_refused() -> None:
    """The message names the span of the events and the necessary one; exactly enough is accepted."""
    with pytest.raises(TrainingError, match=r"span 5 days, 5\.4 days are needed for a horizon of 3 days.*zon 66h"):
        plan(days(0, 1), 5 * DAY, 3 * DAY, 14)
    assert plan(days(0, 1), 8 * DAY, 3 * DAY, 3).times


@pytest.mark.parametrize("horizon", [DAY // 4, DAY, 3 * DAY])
def test_a_history_of_twice_the_horizon_has_snapshots(horizon: int) -> None:
    """All windows and their horizons end at the cut, and the windows are at least half a horizon."""
    posts = np.linspace(0, 2 * horizon, 200).astype(np.int64)
    made = plan(posts, 2 * horizon, horizon, 6)
    assert len(made.times) > 1
    assert made.window >= horizon // 2
    assert made.times[-1] + horizon // 2 + horizon <= 2 * horizon
    with pytest.raises(TrainingError, match="no create"):
        build([Mutation(Kind.FOLLOW, DAY, "a", "b")], CONFIG, 2 * DAY)


def test_posts_are_set_valued() -> None:
    """Repeats change nothing, the earliest create and share count, and undone ones do not."""
    events = [
        Mutation(Kind.CREATE, 2 * DAY, "late", "c"),
        Mutation(Kind.CREATE, DAY, "early", "c"),
        Mutation(Kind.CREATE, DAY, "early", "gone"),
        Mutation(Kind.SHARE, 9 * DAY, "s", "c"),
        Mutation(Kind.SHARE, DAY + 5, "s", "c"),
        Mutation(Kind.SHARE, DAY + 6, "t", "c"),
        Mutation(Kind.SHARE, DAY + 6, "undone", "c"),
        Mutation(Kind.UNSHARE, DAY + 7, "undone", "c"),
        Mutation(Kind.DELETE, DAY + 9, "early", "gone"),
        Mutation(Kind.SHARE, DAY, "s", "never created"),
    ]
    posts, authors = closed_posts(events * 2, 3 * DAY, 20 * DAY)
    assert authors == ["early"]
    assert (posts.time.tolist(), posts.reach.tolist()) == ([DAY], [2])


def test_a_snapshot_holds_nothing_later(town: list[Mutation]) -> None:
    """If everything after the first snapshot is replaced, its graph is the same and its labels change."""
    until = town[0].time + 15 * DAY
    original = build(town, CONFIG, until, snapshots=2)
    created = times_of_posts(town)
    cut = plan(created[created <= until], until, 3 * DAY, 2).times[0]
    other = [m for m in town if m.time <= cut or m.kind != Kind.SHARE]
    changed = build(other, CONFIG, until, snapshots=2)
    for name, values in original.snapshots[0].graph.x.items():
        np.testing.assert_array_equal(values, changed.snapshots[0].graph.x[name])
    np.testing.assert_array_equal(original.snapshots[0].graph.own, changed.snapshots[0].graph.own)
    assert np.nansum(changed.snapshots[0].target) < np.nansum(original.snapshots[0].target)


def test_nothing_after_the_cut_is_read(town: list[Mutation]) -> None:
    """Events after --until change neither graph nor labels."""
    until = town[0].time + 12 * DAY
    datasets: Iterator[Dataset] = (
        build(events, CONFIG, until, snapshots=2) for events in (town, [m for m in town if m.time <= until])
    )
    full, cut = datasets
    np.testing.assert_array_equal(full.final.own, cut.final.own)
    for expected, actual in zip(full.snapshots, cut.snapshots, strict=True):
        np.testing.assert_array_equal(expected.target, actual.target)


def test_a_snapshot_without_later_labels(town: list[Mutation]) -> None:
    """Labels of posts before a time alone are those of a cut at it, but for the posts that were still open."""
    first = build(town, CONFIG, town[-1].time, snapshots=2).snapshots[0]
    posts, middle = first.posts, first.time + first.window // 2
    assert posts is not None
    assert first.before(first.time + first.window) is first
    early = first.before(middle)
    mean, number = posts.between(first.time, middle).labels(len(first.target), first.time, first.window)
    assert 0 < number.sum() < len(posts.time)
    np.testing.assert_array_equal(early.target, mean)
    np.testing.assert_array_equal(early.weight > 0, number > 0)
    assert np.isnan(first.before(first.time - 1).target).all()


def test_followers_and_held_out_users(town: list[Mutation]) -> None:
    """All followers count, not only those of a window; the same seed holds out the same users."""
    data = build(town, CONFIG, town[-1].time, snapshots=2, held_out=0.3, seed=1)
    pairs: set[tuple[str, str]] = set()
    for m in town:
        if m.kind == Kind.FOLLOW:
            pairs.add((m.user, m.other))
        elif m.kind == Kind.UNFOLLOW:
            pairs.discard((m.user, m.other))
    most = int(data.followers.argmax())
    assert data.followers[most] == sum(other == data.users[most] for _, other in pairs) > 16
    assert 0.15 < data.held_out.mean() < 0.45
    assert not any((s.mask & data.held_out[: len(s.mask)]).any() for s in data.snapshots)
    assert [is_held_out(user, 0.3, 1) for user in data.users] == data.held_out.tolist()


def test_the_command_trains_and_prints_the_ladder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A simulated file with a truth file gives an artifact that loads, a card, and figures of five scorers."""
    file, out = tmp_path / "town.parquet", tmp_path / "artifact"
    truth = tmp_path / "town.parquet.truth.parquet"
    made = ["simulate", "--out", str(file), "--truth", str(truth), "--users", "300", "--communities", "4"]
    assert cli.run([*made, "--days", "14", "--json"]) == 0
    capsys.readouterr()
    assert cli.run(["train", str(file), "--out", str(out), "--snapshots", "4", "--epochs", "2", "--json"]) == 0
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    artifact = Artifact.load(out)
    assert summary["model"] == artifact.version
    assert "true influence" in summary["judged_by"]
    assert [rung["name"] for rung in summary["ladder"]][:4] == ["followers", "past mean", "LightGBM", "GATv2"]
    assert summary["kept"] == summary["candidates"][0]["candidate"]
    (line,) = (line for line in artifact.card.splitlines() if line.startswith("| GATv2 |"))
    assert float(line.split("|")[2]) == pytest.approx(summary["ladder"][3]["all"], abs=6e-4)
    assert "epoch  1 of 2" in printed.err
    names = ["card.md", "config.json", "manifest.json", "weights.safetensors"]
    assert sorted(path.name for path in out.iterdir()) == names


def test_without_a_truth_later_posts_are_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a truth file, the truth is the reach of the later posts of the held-out users."""
    file, out = tmp_path / "town.jsonl", tmp_path / "artifact"
    assert cli.run(["simulate", "--out", str(file), "--users", "300", "--communities", "4", "--days", "14"]) == 0
    assert cli.run(["train", str(file), "--out", str(out), "--snapshots", "3", "--epochs", "1"]) == 0
    assert "after the newest snapshot" in capsys.readouterr().out


def test_the_command_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No input, two inputs, a missing file and too few days are one line each, exit code 1."""
    out = ["--out", str(tmp_path / "artifact")]
    file = tmp_path / "short.jsonl"
    file.write_text('{"type":"create","time":1000000,"user":"a","content":"c"}\n')
    for arguments, message in (
        ([], "give one of: event files"),
        ([str(file), "--simulate", "strong"], "give one of"),
        ([str(file), "--topics"], "give one of"),
        ([str(file), "--since", "2100-01-01"], "there are no events"),
        ([str(tmp_path / "none.jsonl")], "no such file"),
        ([str(file)], "are needed for a horizon of 3 days"),
        ([str(file), "--horizon", "soon"], "no duration"),
        ([str(file), "--truth", str(file)], "truth file"),
        (["--simulate", "hopeless"], "very_hard"),
    ):
        assert cli.run(["train", *arguments, *out]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "artifact").exists()
