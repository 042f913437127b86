"""The live graph: measures by row, sets that are kept with it, and the limit of memory."""

from __future__ import annotations

import numpy as np
import pytest

from graphstate.event_columns import EventColumns
from graphstate.types import Kind
from model.analysis.kept_sets import octave_chance
from model.analysis.reverse_sets import sample
from streams.analyst.graph.live_graph import LiveGraph
from streams.analyst.measures import measure
from streams.errors import AnalystError
from tests.support.strategies import history


def test_kept_sets_follow_the_graph() -> None:
    """As users come, go and are forgotten, all arrays have the same rows, and kept sets equal sampled ones."""
    graph, log = LiveGraph(1, 0, 0, 1_000, cascade_sets=200), history(3, 2_000, users=150)
    for begin in range(0, len(log), 250):
        graph.apply(0, EventColumns.of(log[begin : begin + 250]), -1)
        graph.update()
        measures = measure(graph, 1, {})
        rows = len(measures.live)
        assert {len(measures.pagerank), len(measures.interaction_pagerank), len(measures.core)} == {rows}
        assert measures.sets is not None
        (starts, members), roots = measures.sets
        offsets, sources = graph.follows.graph.csr()
        probability = np.repeat(octave_chance(graph.follows.graph.length), np.diff(offsets))
        fresh = sample(offsets, sources, probability, np.arange(roots), 0, 200)
        for number in range(200):
            expected = sorted(fresh.rows[fresh.offsets[number] : fresh.offsets[number + 1]].tolist())
            assert members[starts[number] : starts[number + 1]].tolist() == expected
    assert any(event.kind == Kind.FORGET for event in log)


def test_a_graph_beyond_its_memory_is_refused() -> None:
    """The message has the numbers and the setting."""
    graph = LiveGraph(1, 0, 0, 0)
    graph.apply(0, EventColumns.of(history(1, 50)), -1)
    with pytest.raises(AnalystError, match="GROUNDSWELL_ANALYST_MEMORY_MB"):
        graph.update()
