"""The cascade of a content, compared with the naive graph."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from graphstate.types import GraphSpec
from streams.messages.headers import rfc3339
from streams.worker.web.live_page.cascades import NEWEST, POINTS, cascade
from tests.support import graphs
from tests.support.graphs import at, create, delete, forget, labels, share, unshare


def test_a_cascade_has_the_shares_in_force(tmp_path: Path) -> None:
    """Shares count once; unshared ones and those of forgotten users are gone; the line ends at the number of shares."""
    events = [create(0, "ana", "post"), labels(0, "ana", "post", "birds"), create(1, "ana", "gone")]
    events += [share(minute, f"u{minute}", "post") for minute in range(1, 100)]
    events += [share(50, "u7", "post"), unshare(100, "u5", "post"), forget(101, "u6"), delete(102, "ana", "gone")]
    naive, _ = graphs.make("naive", tmp_path / "naive", GraphSpec(window=0))
    state, close = graphs.make("state", tmp_path / "state", GraphSpec())
    for graph in (naive, state):
        graph.apply(events)
    shard: Any = SimpleNamespace(graph=state.state)  # type: ignore[attr-defined]
    found = cascade(shard, "post")
    assert found is not None
    expected = {
        (user, time) for user, content, time in graphs.View(naive.snapshot()).edges("shared") if content == "post"
    }
    assert found["shares"] == len(expected) == 97
    assert found["growth"]["shares"][-1] == 97
    assert len(found["growth"]["times"]) == POINTS
    assert found["growth"]["times"][-1] == at(99) / 1e6
    assert [entry["user"] for entry in found["newest"]] == [f"u{minute}" for minute in range(99, 99 - NEWEST, -1)]
    assert (found["author"], found["created"], found["topics"]) == ("ana", rfc3339(at(0)), ["birds"])
    assert cascade(shard, "no-such") is None
    empty = cascade(shard, "gone")
    assert empty is None or empty["shares"] == 0
    close()
