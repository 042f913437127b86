"""Ids of communities on the topic."""

from __future__ import annotations

import pytest

from model.analysis.communities import NONE
from streams.analyst.outputs import label_of


@pytest.mark.parametrize(("community", "label"), [("c0", 0), ("c17", 17), ("cats", NONE), ("17", NONE), ("c", NONE)])
def test_ids_of_found_communities_have_a_label(community: str, label: int) -> None:
    """Ids that the platform gave, published with another setting, are replaced: they have none."""
    assert label_of(community) == label
