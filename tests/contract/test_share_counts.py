"""Shares are counted by outcome, independent of the order of events, and the counts are reported."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphstate.apply.share_outcomes import OUTCOMES
from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.state import GraphState
from graphstate.types import GraphSpec, Kind, Mutation
from model.artifact import Artifact
from streams.cli import run as command
from streams.messages.events import all_from_row
from streams.offline.replay import ReplayResult, run
from streams.offline.share_report import FileShares, ShareTally, span
from streams.shard.graph_view import graph_spec
from tests.properties.test_graph import folder
from tests.support.graphs import DAY, HOUR, create, delete, forget, share, unshare
from tests.support.strategies import SPECS, histories, history, rearranged, splits

RETAINED = GraphSpec(retention_s=10 * 86_400, lateness_s=5 * 86_400, horizon_s=2 * 86_400)
ZERO = dict.fromkeys(OUTCOMES, 0)


def counted(path: Path, spec: GraphSpec, batches: Iterable[list[Mutation]], *, reopen: bool = False) -> dict[str, int]:
    """The counts after these micro-batches; reopen: read from the disk after each."""
    state = GraphState.open(path, spec)
    try:
        for batch in batches:
            state.apply(batch)
            state.commit()
            if reopen:
                before = state.shares.count()
                state.close()
                state = GraphState.open(path, spec)
                assert state.shares.count() == before
        return state.shares.count()
    finally:
        state.close()


def naive(log: list[Mutation], spec: GraphSpec) -> dict[str, int]:
    """The same counts from the set of events, without retention."""
    twin, found = NaiveGraph(spec), dict(ZERO)
    twin.apply(log)
    for content in map(twin._derive, list(twin._contents)):
        found["credited" if content.has_create else "waiting"] += len(content.shares)
        if content.has_create:
            limit = content.created_at + spec.horizon_s * 1_000_000
            found["reach"] += sum(one.time <= limit for one in content.shares)
    return found


@given(data=st.data(), spec=st.sampled_from(SPECS), log=histories())
def test_counts_depend_only_on_the_set_of_events(data: st.DataObject, spec: GraphSpec, log: list[Mutation]) -> None:
    """In any order, with repeats, in any micro-batches, they equal those of the naive twin."""
    with folder() as path:
        assert counted(path, spec, data.draw(splits(data.draw(rearranged(log))))) == naive(log, spec)


@pytest.mark.parametrize("seed", [1, 2])
def test_counts_of_a_larger_history(seed: int, tmp_path: Path) -> None:
    """Some thousand events, read from the disk after each micro-batch."""
    log = history(seed, 2_000)
    batches = [log[at : at + 400] for at in range(0, len(log), 400)]
    expected = naive(log, SPECS[1])
    assert min(expected["credited"], expected["waiting"], expected["reach"]) > 0
    assert expected["credited"] > expected["reach"]
    assert counted(tmp_path / "state", SPECS[1], batches, reopen=True) == expected


def test_shares_beyond_the_retention_are_not_credited(tmp_path: Path) -> None:
    """A share too late for its content, in every order of share and create; a removed share is not counted."""
    log = [
        create(0, "ann", "x"),
        share(HOUR, "bob", "x"),
        share(3 * DAY, "cid", "x"),
        share(11 * DAY, "dan", "x"),
        share(11 * DAY, "eve", "x"),
        unshare(11 * DAY, "eve", "x"),
        share(11 * DAY, "fay", "x"),
        forget(12 * DAY, "fay"),
        share(12 * DAY, "gil", "y"),
    ]
    expected = {**ZERO, "credited": 2, "reach": 1, "beyond_retention": 1, "waiting": 1}
    for number, order in enumerate([log, log[::-1], log + log, random.Random(3).sample(log, len(log))]):
        assert counted(tmp_path / str(number), RETAINED, [order], reopen=True) == expected
    back = [*log, delete(12 * DAY, "ann", "x"), share(12 * DAY + 1, "hal", "x")]
    assert counted(tmp_path / "deleted", RETAINED, [back]) == {**ZERO, "waiting": 2}


def test_evicted_contents_stay_counted(tmp_path: Path) -> None:
    """Evicted contents keep their credited shares; shares of an evicted content without a create are abandoned."""
    log = [
        create(0, "ann", "x"),
        share(HOUR, "bob", "x"),
        share(3 * DAY, "cid", "x"),
        share(11 * DAY, "dan", "x"),
        share(DAY, "bob", "never"),
        share(20 * DAY, "cid", "z"),
    ]
    before = {**ZERO, "credited": 2, "reach": 1, "beyond_retention": 1, "waiting": 2}
    assert counted(tmp_path / "before", RETAINED, [log[:5], [share(14 * DAY, "cid", "z")]]) == before
    after = {**ZERO, "credited": 2, "reach": 1, "beyond_retention": 1, "waiting": 1, "abandoned": 1}
    assert counted(tmp_path / "after", RETAINED, [[one] for one in log], reopen=True) == after
    late = [*log, share(2 * HOUR, "zoe", "x")]
    assert counted(tmp_path / "late", RETAINED, [late], reopen=True) == {**after, "expired": 1}


# Replay


def replayed(log: list[Mutation], path: Path, shards: int = 1, retention_s: int = 0, worker_s: int = 0) -> ReplayResult:
    """The report of a replay of these events."""
    artifact = Artifact.default()
    spec = graph_spec(artifact.config, retention_s=retention_s, lateness_s=7 * 86_400)
    return run(log, artifact, spec, path, shards=shards, batch=200, worker_retention_s=worker_s)[0]


@pytest.mark.slow
@pytest.mark.parametrize("retention_s", [0, 86_400])
def test_counts_do_not_depend_on_shards(retention_s: int, tmp_path: Path) -> None:
    """The counts of three shards equal those of one, also with evicted contents, and add up to the given shares."""
    log = sorted(history(4, 1_500), key=lambda one: one.time)
    one, three = (
        replayed(log, tmp_path / str(shards), shards, retention_s, worker_s=86_400).shares for shards in (1, 3)
    )
    assert one == three
    assert one.given == sum(mutation.kind == Kind.SHARE for mutation in log)
    parts = (one.credited, one.waiting, one.beyond_retention, one.too_old, one.expired, one.repeated)
    assert sum(parts) == one.given
    assert one.reach <= one.credited
    if retention_s:
        assert one.too_old > 0
        assert one.worker_leaves_out == 0
    else:
        assert one.worker_leaves_out > 0


def old_contents(path: Path) -> None:
    """Write shares of contents that are years old, and one share of a content without a create."""
    rows: list[dict[str, Any]] = [{"type": "follow", "time": "2026-03-01T12:00:00Z", "user": "u1", "target": "u2"}]
    rows += [{"type": "create", "time": "2015-05-01T00:00:00Z", "user": f"u{i}", "content": f"c{i}"} for i in range(20)]
    rows += [
        {"type": "share", "time": f"2026-03-0{1 + i % 5}T13:00:00Z", "user": f"u{i % 50}", "content": f"c{i % 20}"}
        for i in range(100)
    ]
    rows.append({"type": "share", "time": "2026-03-05T13:00:00Z", "user": "u1", "content": "unknown"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_shares_lost_to_the_retention_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`replay` reports how many shares did not count, the retention, and how many a worker would leave out."""
    path = tmp_path / "old.jsonl"
    old_contents(path)
    out = str(tmp_path / "out")
    assert command(["replay", str(path), "--out", out, "--retention-s", "2592000"]) == 0
    lines = capsys.readouterr().out
    assert "100 of 101 shares did not count: their contents are older than the retention of 30 days" in lines
    assert "1 of 101 shares are not credited: no create of their content was read" in lines
    assert "retention: 30 days" in lines
    assert command(["replay", str(path), "--out", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shares"] == 101
    assert (found["shares_credited"], found["shares_waiting"], found["shares_beyond_horizon"]) == (100, 1, 100)
    assert found["retention_s"] == 0
    (note,) = [note for note in found["notes"] if note.startswith("retention")]
    assert "everything is kept; a worker keeps 30 days" in note
    assert "100 of 101 shares would not count there" in note


def test_only_the_retention_is_reported_if_all_shares_count(tmp_path: Path) -> None:
    """The report then has one line."""
    log = [create(0, "ann", "x"), share(1, "bob", "x")]
    tally = replayed(log, tmp_path / "out", worker_s=86_400).shares
    assert tally == ShareTally(given=1, credited=1, reach=1)
    (lines,) = tally.lines(0, 0, 3 * 86_400, 86_400)
    assert lines.startswith("retention: everything is kept; a worker keeps 1 day (GROUNDSWELL_RETENTION_S, here ")
    assert lines.endswith("--retention-s 86400): the same here")
    assert pq.read_table(tmp_path / "out" / "scores.parquet").num_rows == 2


# A file


def test_shares_of_a_file_are_counted() -> None:
    """`produce` counts shares without a create in the file, in any order, and those beyond the retention."""
    found = FileShares(retention_s=10 * 86_400)
    found.count([share(1, "bob", "late"), share(2, "bob", "never"), create(0, "ann", "late"), create(0, "ann", "x")])
    found.count([share(9 * DAY, "bob", "x"), share(11 * DAY, "cid", "x"), share(3, "cid", "never")])
    assert found.fields() == {
        "shares": 5, "shares_without_create": 2, "shares_beyond_retention": 1, "shares_untracked": 0,
    }  # fmt: skip
    lines = list(found.lines(10 * 86_400))
    assert lines[0].startswith("2 of 5 shares name a content whose create is not in the file")
    assert "1 of 5 shares will not count: their contents are older than the retention of 10 days" in lines[1]


def test_a_share_with_an_author_needs_no_create() -> None:
    """The stated create counts."""
    row = {"type": "share", "time": 100, "user": "a", "content": "c", "author": "b", "created": 50}
    found = FileShares()
    found.count(all_from_row(row))
    assert (found.shares, found.waiting) == (1, 0)
    assert list(found.lines(0)) == []


def test_a_file_is_counted_in_bounded_memory() -> None:
    """Beyond the limit shares are counted as unchecked, and a line reports them."""
    found = FileShares(limit=3)
    found.count([share(i, "bob", f"c{i}") for i in range(10)])
    assert (found.waiting, found.untracked) == (3, 7)
    assert "7 of 10 shares were not checked: the file has more than 3 contents" in list(found.lines(0))[-1]


def test_time_spans_are_shown_in_the_largest_unit() -> None:
    """In the largest unit in which the span is a whole number."""
    assert [span(one) for one in (0, 1, 90, 3_600, 86_400, 2_592_000)] == [
        "0 seconds", "1 second", "90 seconds", "1 hour", "1 day", "30 days",
    ]  # fmt: skip
