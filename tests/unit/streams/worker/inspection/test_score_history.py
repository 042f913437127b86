"""What was published lately: the score before the last one, for so many users, and nothing of who was forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphstate.types import Kind, Mutation
from model.artifact import untrained
from model.config import ModelConfig
from streams.shard.graph_view import graph_spec
from streams.shard.score_publisher import Publishing
from streams.shard.shard import Outcome, Shard
from streams.worker.inspection.explanation import explain, look
from streams.worker.inspection.score_history import Earlier, Publications
from tests.support.graphs import HOUR, MINUTE, START
from tests.support.strategies import history

ARTIFACT = untrained(ModelConfig(hidden=8, heads=2, head_hidden=8, window=3, floor=1, target_mean=1.5), 1)


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    """An empty shard that publishes whatever moves."""
    spec = graph_spec(ARTIFACT.config, retention_s=0, lateness_s=0)
    opened = Shard.open(tmp_path / "shard-0", ARTIFACT, spec, publishing=Publishing(0.0, 0.0))
    yield opened
    opened.close()


def step(shard: Shard, publications: Publications, *log: Mutation) -> Outcome:
    """A step that is committed, and remembered."""
    outcome = shard.step(list(log))
    publications.note(outcome)
    shard.commit(shard.next_offset + 1)
    return outcome


def changed(shard: Shard, publications: Publications, user: str) -> dict[str, Any]:
    """What an explanation says of the score before."""
    seen = look(shard, user, publications)
    assert seen is not None
    change: dict[str, Any] = explain(seen)["explanation"]["change"]
    return change


def follow(who: str, whom: str, minute: int, kind: Kind = Kind.FOLLOW) -> Mutation:
    """A follow at a minute."""
    return Mutation(int(kind), START + minute * MINUTE, who, whom)


def test_the_score_before_is_the_publication_before_the_last(shard: Shard) -> None:
    """Whatever was published, in steps of any size, and what the features were then."""
    publications, told = Publications(shard), dict[str, list[Any]]()
    log = history(3, 600, users=25, contents=40)
    users = shard.graph.ledger.users
    for begin in range(0, len(log), 40):
        outcome = step(shard, publications, *log[begin : begin + 40])
        for user in outcome.named:
            told.pop(user, None)
        for score in outcome.scores:
            own = users.own[users.index[score.user]].tolist()
            told.setdefault(score.user, []).append((score, own))
    twice = 0
    for user, row in users.index.items():
        if not users.live(row):
            continue
        before, known = publications.before(row), told.get(user, [])
        assert (before is None) == (len(known) < 2)
        if before is not None:
            score, own = known[-2]
            expected = (pytest.approx(score.reach), pytest.approx(score.percentile), score.as_of)
            assert (before.reach, before.percentile, before.as_of) == expected
            assert (before.own.tolist(), before.model) == (own, ARTIFACT.version)
            twice += 1
    assert twice > 10


def test_who_came_and_who_left_is_told(shard: Shard) -> None:
    """Neighbours and features since then, with what they are worth; own features and the rest make up the whole."""
    publications = Publications(shard)
    step(shard, publications, follow("bo", "ana", 0))
    assert changed(shard, publications, "ana")["before"] is None
    step(shard, publications, follow("cy", "ana", 1), follow("di", "ana", 2), follow("ed", "ana", 3))
    change = changed(shard, publications, "ana")
    assert change["arrived"] == [["follows", "cy"], ["follows", "di"], ["follows", "ed"]]
    assert change["gone"] == [["follows", "bo"]]
    assert change["features"]["followers"]["before"] < change["features"]["followers"]["now"]
    assert change["own"]["log_reach"] + change["rest"]["log_reach"] == pytest.approx(change["log_reach"])
    seen = look(shard, "ana", publications)
    assert seen is not None
    assert change["before"]["reach"] + change["people"] == pytest.approx(seen.about["reach"], abs=1e-5)
    assert change["published"]["reach"] == pytest.approx(seen.about["reach"])


def test_nobody_who_was_forgotten_is_remembered(shard: Shard) -> None:
    """Neither their own scores, nor that they were somebody's neighbour, also once they are back under the same id."""
    publications = Publications(shard)
    step(shard, publications, follow("bo", "ana", 0), follow("ana", "bo", 0))
    step(shard, publications, follow("cy", "ana", 1), follow("cy", "bo", 1))
    row = shard.graph.ledger.users.index["bo"]
    assert isinstance(publications.before(row), Earlier)
    step(shard, publications, Mutation(int(Kind.FORGET), START + HOUR * MINUTE, "bo"))
    assert publications.before(row) is None
    change = changed(shard, publications, "ana")
    assert "bo" not in str(change)
    follows_and_interacts = publications._source[:, :, :6]
    assert row not in follows_and_interacts
    step(shard, publications, follow("bo", "di", 2 * HOUR))
    assert shard.graph.ledger.users.index["bo"] == row
    assert publications.before(row) is None
    assert "bo" not in str(changed(shard, publications, "ana"))


def test_only_so_many_are_remembered(shard: Shard) -> None:
    """Whoever was first leaves for one who comes; a step with more than there is room for does no harm."""
    publications = Publications(shard, 4)
    for minute in range(3):
        step(shard, publications, *(follow(f"a{minute}", f"u{n}", minute) for n in range(10)))
        held = [row for row in range(shard.graph.ledger.users.rows) if publications._slot[row] >= 0]
        assert len(held) == 4
        assert sorted(publications._row.tolist()) == held
    step(shard, publications, follow("x", "y", 4))
    users = shard.graph.ledger.users
    assert {publications._slot[users.index[name]] >= 0 for name in ("x", "y")} == {True}


def test_another_model_makes_the_scores_incomparable(shard: Shard) -> None:
    """The score before is told with its model; how much each part did is not."""
    publications = Publications(shard)
    step(shard, publications, follow("bo", "ana", 0))
    step(shard, publications, follow("cy", "ana", 1))
    publications._models[0] = "another"
    change = changed(shard, publications, "ana")
    assert (change["before"]["model"], change["own"], change["rest"]) == ("another", None, None)
    assert change["arrived"] == [["follows", "cy"]]
