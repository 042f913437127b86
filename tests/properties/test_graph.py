"""Random histories: the state in RocksDB is the twin, whatever the order, the repeats, the batches and the restarts."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.state import GraphState
from graphstate.types import GraphSpec, Mutation
from tests.support.graphs import differences, join, leave
from tests.support.strategies import RETAINED, SPECS, histories, history, logs, rearranged, splits

Data = st.DataObject


@contextmanager
def folder() -> Iterator[Path]:
    """A place for one example's database."""
    with tempfile.TemporaryDirectory(prefix="groundswell-") as path:
        yield Path(path) / "state"


def twin_of(log: list[Mutation], spec: GraphSpec) -> NaiveGraph:
    """The twin of a whole log."""
    twin = NaiveGraph(spec)
    twin.apply(log)
    return twin


@settings(max_examples=150)
@given(data=st.data(), spec=st.sampled_from(SPECS), log=histories())
def test_twin_is_a_function_of_the_set(data: Data, spec: GraphSpec, log: list[Mutation]) -> None:
    """Order and repeats make no difference to the twin."""
    expected = twin_of(log, spec).snapshot()
    assert differences(expected, twin_of(data.draw(rearranged(log)), spec).snapshot()) == []


def follow_twin(path: Path, spec: GraphSpec, batches: list[list[Mutation]], reopen: set[int]) -> None:
    """Apply batches to a state and a twin, compare after each, and after each restart."""
    twin, state = NaiveGraph(spec), GraphState.open(path, spec)
    try:
        for number, batch in enumerate(batches):
            assert state.apply(batch) == twin.apply(batch)
            assert state.clock == twin.clock or not batch
            assert differences(twin.snapshot(), state.snapshot()) == []
            state.commit()
            if number in reopen:
                state.close()
                state = GraphState.open(path, spec)
                assert differences(twin.snapshot(), state.snapshot()) == []
    finally:
        state.close()


@given(data=st.data(), spec=st.sampled_from(SPECS), log=histories())
def test_state_is_the_twin(data: Data, spec: GraphSpec, log: list[Mutation]) -> None:
    """After each micro-batch, and each restart, the state equals the twin."""
    batches = data.draw(splits(log))
    reopen = data.draw(st.sets(st.integers(0, len(batches) - 1)))
    with folder() as path:
        follow_twin(path, spec, batches, reopen)


@given(data=st.data(), spec=st.sampled_from(RETAINED), log=logs())
def test_state_is_the_twin_with_retention(data: Data, spec: GraphSpec, log: list[Mutation]) -> None:
    """The same with expiry and eviction, log by log."""
    batches = data.draw(splits(log))
    reopen = data.draw(st.sets(st.integers(0, len(batches) - 1)))
    with folder() as path:
        follow_twin(path, spec, batches, reopen)


@given(data=st.data(), spec=st.sampled_from(SPECS), log=histories())
def test_any_order(data: Data, spec: GraphSpec, log: list[Mutation]) -> None:
    """Any order, repetition and split of a history gives the same state."""
    expected = twin_of(log, spec).snapshot()
    with folder() as path:
        state = GraphState.open(path, spec)
        try:
            for batch in data.draw(splits(data.draw(rearranged(log)))):
                state.apply(batch)
                state.commit()
            assert differences(expected, state.snapshot()) == []
        finally:
            state.close()


@settings(max_examples=20)
@given(data=st.data(), spec=st.sampled_from(SPECS), log=histories())
def test_crash(data: Data, spec: GraphSpec, log: list[Mutation]) -> None:
    """A state closed without a commit is that of the last commit, and the lost batch can be applied again."""
    batches = data.draw(splits(log))
    lost = data.draw(st.integers(0, len(batches) - 1))
    twin = NaiveGraph(spec)
    with folder() as path:
        state = GraphState.open(path, spec)
        try:
            for number, batch in enumerate(batches):
                if number == lost:
                    state.apply(batch)
                    state.close()
                    state = GraphState.open(path, spec)
                    assert differences(twin.snapshot(), state.snapshot()) == []
                state.apply(batch)
                state.commit()
                twin.apply(batch)
            assert differences(twin.snapshot(), state.snapshot()) == []
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
    follow_twin(tmp_path / "state", spec, batches, set(range(0, len(batches), 3)))


def test_larger_history_shuffled(tmp_path: Path) -> None:
    """The same events shuffled and all of them twice."""
    spec, log = GraphSpec(window=4, floor=2), history(99, 3_000)
    expected = twin_of(log, spec).snapshot()
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
    """A leave of a community without members is remembered as that community's, also over a restart."""
    batches = [[leave(0, "c", "k")], [join(0, "c", "l")], [join(0, "c", "k")], [join(1, "c", "k")]]
    follow_twin(tmp_path / "state", SPECS[0], batches, {0, 1, 2, 3})
