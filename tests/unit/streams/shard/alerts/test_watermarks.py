"""The watermark of a shard: the least newest time of the partitions that are not idle."""

from __future__ import annotations

from graphstate.storage.row_layouts import NEVER
from streams.messages.packs.source_progress import SourceProgress
from streams.shard.alerts.watermarks import Watermarks

TWO = {"t": 2}


def test_least_of_all_partitions() -> None:
    """The watermark is the least time, once every partition that must exist has one; it never falls."""
    marks = Watermarks()
    assert not marks.update(SourceProgress({"t:0": 50}, [], TWO))
    assert (marks.watermark, marks.missing()) == (NEVER, ["t:1"])
    assert marks.update(SourceProgress({"t:1": 20}))
    assert not marks.update(SourceProgress({"t:0": 40, "t:1": 10}))
    assert (marks.watermark, marks.lags()) == (20, {"t:0": 0.0, "t:1": 30e-6})
    marks.update(SourceProgress({}, [], {"t": 3}))
    marks.update(SourceProgress({"t:0": 90, "t:1": 90}))
    assert (marks.watermark, marks.missing()) == (20, ["t:2"])


def test_idle_partitions_are_left_out() -> None:
    """An idle partition holds nothing back until its next message; if all are idle, the largest time counts."""
    marks = Watermarks()
    marks.update(SourceProgress({"t:0": 50}, ["t:1"], TWO))
    assert marks.watermark == 50
    marks.update(SourceProgress({"t:1": 10}))
    marks.update(SourceProgress({"t:0": 80}))
    assert marks.watermark == 50
    marks.update(SourceProgress({}, ["t:0", "t:1"]))
    assert (marks.watermark, marks.lags()) == (80, {})


def test_a_woken_partition_holds_it_back() -> None:
    """A partition that wakes is waited for again, at its newest time; one that no pack has named, altogether."""
    marks = Watermarks()
    marks.update(SourceProgress({"t:0": 50}, ["t:1"], TWO))
    assert not marks.update(SourceProgress({"t:0": 80}, [], {}, ["t:1"]))
    assert (marks.watermark, marks.missing()) == (50, ["t:1"])
    assert marks.update(SourceProgress({"t:1": 60}))
    marks.update(SourceProgress({}, ["t:1"]))
    assert marks.watermark == 80
    assert not marks.update(SourceProgress({"t:0": 90}, [], {}, ["t:0", "t:1"]))
    assert (marks.watermark, marks.idle) == (80, set())


def test_a_restart_keeps_it() -> None:
    """The stored state restores the watermark and every partition."""
    marks, other = Watermarks(), Watermarks()
    marks.update(SourceProgress({"t:0": 50, "t:1": 60}, ["t:0"], TWO))
    other.restore(marks.to_json())
    assert other.to_json() == marks.to_json()
    assert not other.update(SourceProgress({"t:1": 55}))
