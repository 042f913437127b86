"""Rankings of a shard by measure, tier and topic, and a user's figures; expected values are written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graphstate.types import GraphSpec
from model.artifact import untrained
from model.config import ModelConfig
from streams.shard import user_reads
from streams.shard.shard import Shard
from streams.shard.user_reads import PRIOR_POSTS, Ranking, topic_reach
from tests.support.graphs import DAY, create, follow, labels, share

LOG = [
    *(follow(day * DAY, f"f{day}", "ann") for day in range(40)),
    *(follow(39 * DAY, f"f{number}", "ben") for number in range(4)),
    create(38 * DAY, "ann", "x"),
    labels(38 * DAY, "ann", "x", "art", "sea"),
    create(38 * DAY + 1, "ben", "y"),
    labels(38 * DAY + 1, "ben", "y", "art"),
    *(share(38 * DAY + 5 + number, f"f{number}", "y") for number in range(3)),
    share(38 * DAY + 9, "f9", "x"),
]


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shard]:
    """A shard after the log; its clock is the end of day 39."""
    opened = Shard.open(Path(tmp_path_factory.mktemp("shard")), untrained(ModelConfig(), 1), GraphSpec())
    opened.step(LOG)
    yield opened
    opened.close()


def values(shard: Shard, *args: object, n: int = 10) -> list[tuple[str, float]]:
    """Return user and value of a ranking, without values of 0."""
    return [(one["user"], one["value"]) for one in user_reads.ranked(shard, n, Ranking(*args)) if one["value"]]  # type: ignore[arg-type]


def test_measures(shard: Shard) -> None:
    """Followers, growth per follower before, and sharers per post and follower."""
    assert values(shard, "followers") == [("ann", 40), ("ben", 4)]
    assert values(shard, "growth_1d") == [("ben", 4.0), ("ann", pytest.approx(1 / 39))]
    assert values(shard, "growth_7d")[1] == ("ann", pytest.approx(7 / 33))
    assert values(shard, "growth_30d")[1] == ("ann", 3.0)
    assert values(shard, "engagement") == [("ben", 3 / 4), ("ann", 1 / 40)]


def test_tier_and_limit(shard: Shard) -> None:
    """Only users with followers within the bounds are ranked, and the limit cuts after the order is known."""
    assert values(shard, "followers", 8, 64) == [("ann", 40)]
    assert values(shard, "followers", n=1) == [("ann", 40)]


def test_topics(shard: Shard) -> None:
    """A topic ranks those with posts on it; a user's entry lists topics with the mean reach of the posts."""
    ranked = user_reads.ranked(shard, 10, Ranking(topic="art"))
    assert {one["user"]: one["topic_posts"] for one in ranked} == {"ann": 1, "ben": 1}
    assert [one["user"] for one in user_reads.ranked(shard, 10, Ranking(topic="sea"))] == ["ann"]
    assert user_reads.ranked(shard, 10, Ranking(topic="none")) == []
    user = shard.reads.user("ann")
    assert user is not None
    assert [(one["topic"], one["posts"], one["mean_reach"]) for one in user["topics"]] == [("art", 1, 1), ("sea", 1, 1)]
    assert user["gained"] == {"1d": 1, "7d": 7, "30d": 30}


def test_only_the_owner_answers(tmp_path: Path) -> None:
    """Of several shards one answers for a user, though others have a row of it."""
    artifact, answers = untrained(ModelConfig(), 1), []
    for number in range(3):
        opened = Shard.open(tmp_path / str(number), artifact, GraphSpec(shards=3, shard=number))
        opened.step(LOG)
        answers += [opened.reads.user("ben")]
        opened.close()
    assert sum(answer is not None for answer in answers) == 1


def test_topic_reach_lies_between_both() -> None:
    """Without posts the reach on a topic is the user's; with many it is that of the posts."""
    logs = np.array([0, round(4096 * np.log1p(100)) * 10_000])
    reach = topic_reach(np.array([7.0, 7.0]), np.array([0, 10_000]), logs)
    np.testing.assert_allclose(reach, [7, 100], rtol=0.01)
    assert PRIOR_POSTS > 0
