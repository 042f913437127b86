"""The view that engines read."""

from __future__ import annotations

from pathlib import Path

from graphstate.state import GraphState
from graphstate.types import RELATIONS, TYPES, GraphSpec, Kind, Mutation
from streams.shard.graph_view import LiveView


def arrays(view: LiveView) -> list[int]:
    """Return the addresses of all arrays that compiled code reads."""
    windows = [array for number in range(len(RELATIONS)) for array in view.windows(number)[:3]]
    every = [*windows, *(view.propagated(kind) for kind in range(len(TYPES))), view.own()]
    return [array.ctypes.data for array in every]


def test_growth_is_shown(tmp_path: Path) -> None:
    """The object of `arrays` is another one after each step that replaced an array, and the same otherwise."""
    state = GraphState.open(tmp_path, GraphSpec(window=4))
    view, replaced = LiveView(state), 0
    held, before = view.arrays(), arrays(view)
    for step in range(60):
        events = [Mutation(Kind.CREATE, 1_000_000 * (step + 1), f"u{20 * step + n}", f"c{n}") for n in range(20)]
        events += [Mutation(Kind.FOLLOW, 1_000_000 * (step + 1), f"u{20 * step + n}", f"u{n}") for n in range(20)]
        state.apply(events)
        state.commit()
        assert (arrays(view) == before) or view.arrays() is not held
        replaced += view.arrays() is not held
        held, before = view.arrays(), arrays(view)
        assert view.arrays() is held
    assert 2 <= replaced <= 20
    state.close()
