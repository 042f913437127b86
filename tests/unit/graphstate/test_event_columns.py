"""Mutations as columns and back."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphstate.event_columns import ABSENT, EventColumns
from graphstate.types import Fact, Kind, Mutation

IDS = st.sampled_from(["ana", "ben", "c1", "c2", "é"])
MUTATIONS = st.builds(
    Mutation, st.integers(0, 33), st.integers(0, 2**53), IDS, IDS | st.just(""), st.none() | IDS,
    st.integers(0, 2**64 - 1),
)  # fmt: skip


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
    assert sorted(columns.ids) == ["ana", "ben", "c1", "c2"]
    assert [ABSENT if number == ABSENT else columns.ids[number] for number in columns.extra] == ["ben", -1, "c2", -1]


def test_a_fact_has_a_number_of_64_bits() -> None:
    """The number of a fact may be a hash."""
    mutations = [Mutation(Fact.TIED, 0, "", "", "ab", 2**64 - 1)]
    assert EventColumns.of(mutations).mutations() == mutations


@given(st.lists(st.lists(MUTATIONS, max_size=5), max_size=5), st.randoms())
def test_columns_are_joined_selected_and_compacted(parts: list[list[Mutation]], chance: Random) -> None:
    """Columns behave as lists of mutations do; compact ones have no other ids than their mutations."""
    mutations = [mutation for part in parts for mutation in part]
    joined = EventColumns.joined([EventColumns.of(part) for part in parts])
    assert joined.mutations() == mutations
    chosen = np.array([chance.random() < 0.5 for _ in mutations], np.bool_)
    selected = joined.select(chosen).compact()
    expected = [mutation for mutation, keep in zip(mutations, chosen, strict=True) if keep]
    assert selected.mutations() == expected
    named = {node_id for m in expected for node_id in (m.user, m.other, m.extra) if node_id}
    assert sorted(selected.ids) == sorted(named)
    twice = EventColumns.joined([selected, joined.select(slice(0, 1)), joined])
    assert twice.mutations() == expected + mutations[:1] + mutations


def test_no_mutations_give_empty_columns() -> None:
    """An empty micro-batch has columns of the right types."""
    columns = EventColumns.of([])
    assert len(columns) == 0
    assert columns.mutations() == []
    assert columns.time.dtype == "i8"
