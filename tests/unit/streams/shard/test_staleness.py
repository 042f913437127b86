"""Staleness: which rows a step recomputes after silent steps, with a tolerance, and after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphstate.types import USER, GraphSpec
from model.artifact import untrained
from model.config import ModelConfig
from streams.messages.packs.mutation_packs import Record
from streams.shard.shard import Shard
from tests.support.graphs import follow

ARTIFACT = untrained(ModelConfig())


def test_a_silent_step_makes_the_next_one_recompute_all(tmp_path: Path) -> None:
    """After a silent step all embeddings are stale; the next step recomputes all rows, and the one after a few."""
    shard = Shard.open(tmp_path, ARTIFACT, GraphSpec())
    shard.step([follow(number, f"u{number}", f"u{number + 1}") for number in range(50)])
    shard.commit()
    outcome = shard.process([Record.of(0, [follow(60, "u1", "u9")], 0)], silent=True)
    assert (outcome.frontier, outcome.scores, shard.staleness.embeddings_current) == ((0, 0), [], False)
    shard.commit()
    frontier = shard.step([follow(61, "u2", "u9")]).frontier
    assert frontier == (sum(map(len, shard.graph.own_rows())), len(shard.graph.own_rows()[USER]))
    assert (shard.staleness.bulk, shard.staleness.embeddings_current) == (True, True)
    shard.commit()
    assert sum(shard.step([follow(62, "u3", "u9")]).frontier) < sum(frontier)
    assert not shard.staleness.bulk
    shard.close()


@pytest.mark.parametrize("tolerance", [0.0, 1e9])
def test_deferred_rows_are_recomputed_after_a_restart(tmp_path: Path, tolerance: float) -> None:
    """A commit stores whether rows are held back; a restart then recomputes all rows and republishes."""
    shard = Shard.open(tmp_path, ARTIFACT, GraphSpec(), tolerance=tolerance)
    for minute in range(3):
        shard.step([follow(minute, f"u{minute}", "hub")])
        assert shard.staleness.with_tolerance is (tolerance > 0)
        shard.commit()
    assert shard.staleness.deferred is (tolerance > 0)
    shard.close()
    shard = Shard.open(tmp_path, ARTIFACT, GraphSpec(), tolerance=tolerance)
    assert shard.staleness.embeddings_stale is shard.publisher.republish_pending is (tolerance > 0)
    shard.step([])
    shard.commit()
    assert not shard.staleness.deferred
    shard.close()
