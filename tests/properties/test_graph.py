"""Random histories: the state equals the naive graph for any order, repeats, micro-batches and restarts."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.state import GraphState
from graphstate.types import GraphSpec, Mutation
from tests.support.examples import examples
from tests.support.figures import check_figures
from tests.support.graphs import differences, join, leave
from tests.support.strategies import RETAINED, SPECS, histories, history, logs, rearranged, splits

Data = st.DataObject


@contextmanager
def folder() -> Iterator[Path]:
    """Return a new folder for the database of one example."""
    with tempfile.TemporaryDirectory(prefix="groundswell-") as path:
        yield Path(path) / "state"


def naive_graph_of(log: list[Mutation], spec: GraphSpec) -> NaiveGraph:
    """Return the naive graph of a whole log."""
    naive = NaiveGraph(spec)
    naive.apply(log)
    return naive


@examples(150)
@given(data=st.data(), spec=st.sampled_from(SPECS), log=histories())
def test_the_naive_graph_is_a_function_of_the_set(data: Data, spec: GraphSpec, log: list[Mutation]) -> None:
    """Order and repeats do not change the naive graph."""
    expected = naive_graph_of(log, spec).snapshot()
    assert differences(expected, naive_graph_of(data.draw(rearranged(log)), spec).snapshot()) == []


def compare_with_naive_graph(path: Path, spec: GraphSpec, batches: list[list[Mutation]], reopen: set[int]) -> None:
    """Apply micro-batches to a state and a naive graph; compare after each and after each restart."""
    naive, state = NaiveGraph(spec), GraphState.open(path, spec)
    try:
        for number, batch in enumerate(batches):
            assert state.apply(batch) == naive.apply(batch)
            assert state.clock == naive.clock or not batch
            assert differences(naive.snapshot(), state.snapshot()) == []
            check_figures(naive, [state])
            state.commit()
            if number in reopen:
                state.close()
                state = GraphState.open(path, spec)
                assert differences(naive.snapshot(), state.snapshot()) == []
    finally:
        state.close()


@given(data=st.data(), spec=st.sampled_from(SPECS), log=histories())
def test_the_state_equals_the_naive_graph(data: Data, spec: GraphSpec, log: list[Mutation]) -> None:
    """The state equals the naive graph after each micro-batch and each restart."""
    batches = data.draw(splits(log))
    reopen = data.draw(st.sets(st.integers(0, len(batches) - 1)))
    with folder() as path:
        compare_with_naive_graph(path, spec, batches, reopen)


@given(data=st.data(), spec=st.sampled_from(RETAINED), log=logs())
def test_the_state_equals_the_naive_graph_with_retention(data: Data, spec: GraphSpec, log: list[Mutation]) -> None:
    """It does with expiry and eviction, too."""
    batches = data.draw(splits(log))
    reopen = data.draw(st.sets(st.integers(0, len(batches) - 1)))
    with folder() as path:
        compare_with_naive_graph(path, spec, batches, reopen)


@given(data=st.data(), spec=st.sampled_from(SPECS), log=histories())
def test_any_order(data: Data, spec: GraphSpec, log: list[Mutation]) -> None:
    """Any order, repeats and micro-batches of a history result in the same state."""
    expected = naive_graph_of(log, spec).snapshot()
    with folder() as path:
        state = GraphState.open(path, spec)
        try:
            for batch in data.draw(splits(data.draw(rearranged(log)))):
                state.apply(batch)
                state.commit()
            assert differences(expected, state.snapshot()) == []
        finally:
            state.close()


@examples(20)
@given(data=st.data(), spec=st.sampled_from(SPECS), log=histories())
def test_crash(data: Data, spec: GraphSpec, log: list[Mutation]) -> None:
    """After a close without a commit the state is that of the last commit; the lost micro-batch can be repeated."""
    batches = data.draw(splits(log))
    lost = data.draw(st.integers(0, len(batches) - 1))
    naive = NaiveGraph(spec)
    with folder() as path:
        state = GraphState.open(path, spec)
        try:
            for number, batch in enumerate(batches):
                if number == lost:
                    state.apply(batch)
                    state.close()
                    state = GraphState.open(path, spec)
                    assert differences(naive.snapshot(), state.snapshot()) == []
                state.apply(batch)
                state.commit()
                naive.apply(batch)
            assert differences(naive.snapshot(), state.snapshot()) == []
        finally:
            state.close()


@pytest.mark.parametrize(("seed", "spec"), list(enumerate((*SPECS, *RETAINED))))
def test_larger_history(seed: int, spec: GraphSpec, tmp_path: Path) -> None:
    """A few thousand events with full windows, in micro-batches of all sizes, with restarts."""
    log, rng = history(seed, 3_000), random.Random(seed)
    batches = []
    while log:
        size = rng.choice((1, 30, 300, 900))
        batches.append(log[:size])
        log = log[size:]
    compare_with_naive_graph(tmp_path / "state", spec, batches, set(range(0, len(batches), 3)))


def test_larger_history_shuffled(tmp_path: Path) -> None:
    """The same events shuffled and all of them twice."""
    spec, log = GraphSpec(window=4, floor=2), history(99, 3_000)
    expected = naive_graph_of(log, spec).snapshot()
    log = log + log
    random.Random(99).shuffle(log)
    state = GraphState.open(tmp_path / "state", spec)
    try:
        for start in range(0, len(log), 500):
            state.apply(log[start : start + 500])
            state.commit()
        assert differences(expected, state.snapshot()) == []
    finally:
        state.close()


def test_unknown_community_left(tmp_path: Path) -> None:
    """A leave of a community without members is stored for that community, also after a restart."""
    batches = [[leave(0, "c", "k")], [join(0, "c", "l")], [join(0, "c", "k")], [join(1, "c", "k")]]
    compare_with_naive_graph(tmp_path / "state", SPECS[0], batches, {0, 1, 2, 3})
