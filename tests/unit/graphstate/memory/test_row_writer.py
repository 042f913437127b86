"""Bulk writes have the bytes of single writes, and each changed record is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphstate.memory import counter_codec, row_writer
from graphstate.memory.node_tables import FOLLOWERS, MADE
from graphstate.state import GraphState
from graphstate.storage import row_layouts
from graphstate.types import CONTENT, FOLLOWS, TYPES, USER, Fact, GraphSpec, Kind, Mutation, owner
from tests.support.graphs import at, follow
from tests.support.strategies import history


def committed(state: GraphState, family: str) -> dict[bytes, bytes]:
    """Return the rows on disk."""
    return dict(state.store.rows(family))


@pytest.mark.parametrize("few", [0, 10_000])
def test_the_disk_holds_the_records_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """After a mixed log with forgotten users, every record and counter on disk is that of its node, in bulk or not."""
    monkeypatch.setattr(row_writer, "FEW", few)
    state = GraphState.open(tmp_path, GraphSpec())
    log = history(3, 1_500)
    assert {mutation.kind for mutation in log} == set(Kind)
    for begin in range(0, len(log), 100):
        state.apply(log[begin : begin + 100])
        state.commit()
    nodes, counters = committed(state, "nodes"), committed(state, "counters")
    users, tables = state.users, state.tables
    assert any(not name for name in users.ids), "nobody is forgotten: it proves less"
    for kind in range(len(TYPES)):
        for row in range(tables[kind].rows):
            assert nodes[row_layouts.node(kind, row)] == tables[kind].record(row)
    every = np.arange(users.rows)
    assert counters == dict(
        zip((row_layouts.node(USER, row) for row in every), counter_codec.pack(users, every), strict=True)
    )
    state.close()


def test_a_record_is_written_when_it_changed(tmp_path: Path) -> None:
    """A share changes the counters of the content's creator, and not the creator's record."""
    state = GraphState.open(tmp_path, GraphSpec())
    state.apply([Mutation(Kind.CREATE, at(1), "creator", "x")])
    state.commit()
    creator, content = state.users.index["creator"], state.contents.index["x"]
    for key in (row_layouts.node(USER, creator), row_layouts.node(CONTENT, content)):
        state.store.remove("nodes", key)
    state.store.remove("counters", row_layouts.node(USER, creator))
    state.apply([Mutation(Kind.SHARE, at(2), "sharer", "x")])
    state.commit()
    assert row_layouts.node(USER, creator) not in committed(state, "nodes")
    assert row_layouts.node(CONTENT, content) in committed(state, "nodes")
    assert row_layouts.node(USER, creator) in committed(state, "counters")
    state.close()


def test_a_user_named_only_by_a_fact_is_recorded(tmp_path: Path) -> None:
    """A user that only a fact of another shard names exists after a restart."""
    spec = GraphSpec(shards=2, shard=owner("told", 2))
    state = GraphState.open(tmp_path, spec)
    state.apply([Mutation(Fact.MADE, at(1), "told")])
    state.commit()
    state.close()
    again = GraphState.open(tmp_path, spec)
    users = again.users
    assert users.counts[users.index["told"], MADE] == 1
    again.close()


def test_a_boundary_reads_counted_values(tmp_path: Path) -> None:
    """Counters and edges read on a boundary include all earlier mutations and no later one."""
    state = GraphState.open(tmp_path, GraphSpec())
    seen: list[tuple[int, int]] = []

    def on_boundary(_time: int) -> None:
        users = state.users
        row = users.index["b"]
        sources, _ = state.windows.in_edges(FOLLOWS, row)
        seen.append((int(users.counts[row, FOLLOWERS]), len(sources)))

    log = [follow(1, "a", "b"), follow(2, "c", "b"), follow(61, "d", "b"), follow(62, "e", "b"), follow(121, "f", "b")]
    state.apply(log, 60 * 60_000_000, on_boundary)
    assert seen == [(2, 2), (4, 4)]
    state.close()
