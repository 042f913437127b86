"""Score history: the previous publication of a limited number of users, without forgotten users."""

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
from streams.worker.inspection.explanation import explain, read_inputs
from streams.worker.inspection.score_history import Publication, Publications
from tests.support.graphs import HOUR, MINUTE, START
from tests.support.strategies import history

ARTIFACT = untrained(ModelConfig(hidden=8, heads=2, head_hidden=8, window=3, floor=1, target_mean=1.5), 1)


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    """Yield an empty shard that publishes every change of a score."""
    spec = graph_spec(ARTIFACT.config, retention_s=0, lateness_s=0)
    opened = Shard.open(tmp_path / "shard-0", ARTIFACT, spec, publishing=Publishing(0.0, 0.0))
    yield opened
    opened.close()


def step(shard: Shard, publications: Publications, *log: Mutation) -> Outcome:
    """Run, record and commit a step."""
    outcome = shard.step(list(log))
    publications.record(outcome)
    shard.commit(shard.next_offset + 1)
    return outcome


def changed(shard: Shard, publications: Publications, user: str) -> dict[str, Any]:
    """Return the part of an explanation about the previous score."""
    inputs = read_inputs(shard, user, publications)
    assert inputs is not None
    change: dict[str, Any] = explain(inputs)["explanation"]["change"]
    return change


def follow(who: str, whom: str, minute: int, kind: Kind = Kind.FOLLOW) -> Mutation:
    """Return a follow event at a minute."""
    return Mutation(int(kind), START + minute * MINUTE, who, whom)


def test_the_score_before_is_the_publication_before_the_last(shard: Shard) -> None:
    """The previous publication has the published score and the own features of that step."""
    publications, published = Publications(shard), dict[str, list[Any]]()
    log = history(3, 600, users=25, contents=40)
    users = shard.graph.users
    for begin in range(0, len(log), 40):
        outcome = step(shard, publications, *log[begin : begin + 40])
        for user in outcome.named:
            published.pop(user, None)
        for score in outcome.scores:
            own = users.own[users.index[score.user]].tolist()
            published.setdefault(score.user, []).append((score, own))
    twice = 0
    for user, row in users.index.items():
        if not users.live(row):
            continue
        before, scores = publications.previous(row), published.get(user, [])
        assert (before is None) == (len(scores) < 2)
        if before is not None:
            score, own = scores[-2]
            expected = (pytest.approx(score.reach), pytest.approx(score.percentile), score.as_of)
            assert (before.reach, before.percentile, before.as_of) == expected
            assert (before.own.tolist(), before.model) == (own, ARTIFACT.version)
            twice += 1
    assert twice > 10


def test_window_changes_are_explained(shard: Shard) -> None:
    """New and removed neighbours and changed features are listed; own features and the rest add up to the change."""
    publications = Publications(shard)
    step(shard, publications, follow("bo", "ana", 0))
    assert changed(shard, publications, "ana")["before"] is None
    step(shard, publications, follow("cy", "ana", 1), follow("di", "ana", 2), follow("ed", "ana", 3))
    change = changed(shard, publications, "ana")
    assert change["arrived"] == [["follows", "cy"], ["follows", "di"], ["follows", "ed"]]
    assert change["gone"] == [["follows", "bo"]]
    assert change["features"]["followers"]["before"] < change["features"]["followers"]["now"]
    assert change["own"]["log_reach"] + change["rest"]["log_reach"] == pytest.approx(change["log_reach"])
    inputs = read_inputs(shard, "ana", publications)
    assert inputs is not None
    assert change["before"]["reach"] + change["people"] == pytest.approx(inputs.about["reach"], abs=1e-5)
    assert change["published"]["reach"] == pytest.approx(inputs.about["reach"])


def test_forgotten_users_are_removed(shard: Shard) -> None:
    """A forgotten user is removed, also from the windows of others, and stays so when the id comes back."""
    publications = Publications(shard)
    step(shard, publications, follow("bo", "ana", 0), follow("ana", "bo", 0))
    step(shard, publications, follow("cy", "ana", 1), follow("cy", "bo", 1))
    row = shard.graph.users.index["bo"]
    assert isinstance(publications.previous(row), Publication)
    step(shard, publications, Mutation(int(Kind.FORGET), START + HOUR * MINUTE, "bo"))
    assert publications.previous(row) is None
    change = changed(shard, publications, "ana")
    assert "bo" not in str(change)
    follows_and_interacts = publications._source[:, :, :6]
    assert row not in follows_and_interacts
    step(shard, publications, follow("bo", "di", 2 * HOUR))
    assert shard.graph.users.index["bo"] == row
    assert publications.previous(row) is None
    assert "bo" not in str(changed(shard, publications, "ana"))


def test_the_number_of_users_is_limited(shard: Shard) -> None:
    """A new user replaces the oldest one; a step may publish more users than the capacity."""
    publications = Publications(shard, 4)
    for minute in range(3):
        step(shard, publications, *(follow(f"a{minute}", f"u{n}", minute) for n in range(10)))
        held = [row for row in range(shard.graph.users.rows) if publications._slot[row] >= 0]
        assert len(held) == 4
        assert sorted(publications._row.tolist()) == held
    step(shard, publications, follow("x", "y", 4))
    users = shard.graph.users
    assert {publications._slot[users.index[name]] >= 0 for name in ("x", "y")} == {True}


def test_another_model_makes_the_scores_incomparable(shard: Shard) -> None:
    """The previous score is shown with its model, but without the contributions of the parts."""
    publications = Publications(shard)
    step(shard, publications, follow("bo", "ana", 0))
    step(shard, publications, follow("cy", "ana", 1))
    publications._models[0] = "another"
    change = changed(shard, publications, "ana")
    assert (change["before"]["model"], change["own"], change["rest"]) == ("another", None, None)
    assert change["arrived"] == [["follows", "cy"]]
