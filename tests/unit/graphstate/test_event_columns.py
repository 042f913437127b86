"""Mutations as columns and back."""

from __future__ import annotations

from graphstate.event_columns import ABSENT, EventColumns
from graphstate.types import Fact, Kind, Mutation


def test_mutations_survive_as_columns() -> None:
    """Every field of events and facts comes back; a missing id stays missing."""
    mutations = [
        Mutation(Kind.SHARE, 7, "ana", "c1", "ben"),
        Mutation(Kind.FORGET, 8, "ana"),
        Mutation(Fact.REPLIED, 9, "", "c1", "c2"),
        Mutation(Fact.CREDITED, 0, "ben", "", None, 60),
    ]
    columns = EventColumns.of(mutations)
    assert columns.mutations() == mutations
    assert columns.ids == ["ana", "c1", "ben", "c2"]
    assert columns.extra.tolist() == [2, ABSENT, 3, ABSENT]


def test_no_mutations_give_empty_columns() -> None:
    """An empty micro-batch has columns of the right types."""
    columns = EventColumns.of([])
    assert len(columns) == 0
    assert columns.mutations() == []
    assert columns.time.dtype == "i8"
