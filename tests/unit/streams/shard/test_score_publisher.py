"""Calibration of published reach: ranks stay, all users are published again once, and a restart continues."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphstate.types import GraphSpec
from model.artifact import untrained
from model.config import ModelConfig
from model.evaluation.calibration import IDENTITY, CalibrationMap
from streams.shard.shard import Outcome, Shard
from tests.support.graphs import create, share

ARTIFACT = untrained(ModelConfig())
MAP = CalibrationMap(2.0, 0.5, 3.0, 400, -1.0, 1.0)
LOG = [create(0, f"u{user}", f"c{user}") for user in range(9)] + [
    share(9 + user, f"u{user}", f"c{other}") for user in range(9) for other in range(user)
]


def reach(outcome: Outcome) -> dict[str, float]:
    """Return the published reach by user."""
    return {score.user: score.reach for score in outcome.scores}


def test_a_map_is_published_once(tmp_path: Path) -> None:
    """A new map publishes all users in the order of the scores; the same map nothing; a restart with it nothing."""
    shard = Shard.open(tmp_path, ARTIFACT, GraphSpec())
    first = shard.step(LOG)
    assert len(reach(first)) == 9
    shard.commit(1)
    shard.publisher.calibrate(MAP)
    second = shard.step([])
    score = shard.engine.score[[shard.graph.users.index[user] for user in reach(second)]].astype(np.float64)
    assert list(reach(second).values()) == MAP.people(score).tolist()
    assert len(reach(second)) == 9
    assert [one.percentile for one in sorted(second.scores)] == [one.percentile for one in sorted(first.scores)]
    shard.commit(2)
    shard.publisher.calibrate(MAP)
    assert shard.step(LOG).scores == []
    assert shard.reads.top(1)[0]["calibrated"]
    shard.close()
    for calibration, published in ((MAP, 0), (IDENTITY, 9), (MAP, 9)):
        shard = Shard.open(tmp_path, ARTIFACT, GraphSpec(), calibration=calibration)
        assert len(shard.step([]).scores) == published
        shard.commit(3)
        shard.close()


def test_another_artifact_begins_without_a_map(tmp_path: Path) -> None:
    """After a change of the artifact reach is exp(score) − 1 until its own map comes."""
    shard = Shard.open(tmp_path, ARTIFACT, GraphSpec(), calibration=MAP)
    shard.step(LOG)
    shard.commit(1)
    other = untrained(ModelConfig(), 1)
    new = Shard.open(tmp_path / "new", other, GraphSpec())
    new.step(LOG)
    shard.replace_engine(other, new.engine)
    assert shard.publisher.calibration == IDENTITY
    assert reach(shard.step([])) == dict(zip(*new.reads.scores()[:2], strict=True))
    for one in (shard, new):
        one.close()
