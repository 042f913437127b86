"""The graph implementations that the contract tests run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphstate.types import GraphSpec, Mutation
from tests.support.graphs import Build, Graph, View, make


@pytest.fixture
def graphs(tmp_path: Path) -> Iterator[Callable[[str, GraphSpec], Graph]]:
    """A factory of graphs of a kind, closed after the test."""
    ends: list[Callable[[], None]] = []

    def build(kind: str, spec: GraphSpec) -> Graph:
        graph, end = make(kind, tmp_path / f"{kind}{len(ends)}", spec)
        ends.append(end)
        return graph

    yield build
    for end in ends:
        end()


@pytest.fixture(params=["naive", "state", "state, backwards"])
def graph(request: pytest.FixtureRequest, graphs: Callable[[str, GraphSpec], Graph]) -> Build:
    """Return the view after events in one micro-batch, or one by one in reverse: the order must not matter."""

    def build(*events: Mutation, spec: GraphSpec | None = None) -> View:
        kind, _, order = request.param.partition(", ")
        made = graphs(kind, spec or GraphSpec(floor=1))
        if order == "backwards":
            for event in reversed(events):
                made.apply([event])
        else:
            made.apply(list(events))
        return View(made.snapshot())

    return build


@pytest.fixture(params=["naive", "state"])
def log(request: pytest.FixtureRequest, graphs: Callable[[str, GraphSpec], Graph]) -> Callable[[GraphSpec], Graph]:
    """A factory of graphs that makes an empty graph, for tests log; logs in a certain order."""
    return lambda spec: graphs(request.param, spec)
