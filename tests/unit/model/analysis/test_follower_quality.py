"""Follower quality: as in plain Python, full where nothing is known, and low for silent accounts that were sold."""

from __future__ import annotations

import numpy as np
import pytest

from model.analysis.adjacency import Adjacency
from model.analysis.follower_quality import GENUINE, THRESHOLD, Quality, damped, follower_quality, weight
from tests.support import naive_quality

Pairs = set[tuple[int, int]]


def computed(rows: int, follows: Pairs, shares: dict[tuple[int, int], int], posts: list[int]) -> Quality:
    """The quality of users that are numbers."""
    source, target = np.array(sorted(follows), np.int32).reshape(-1, 2).T
    offsets, targets = Adjacency.of(rows, source, target).csr()
    sharer, creator = np.array(sorted(shares), np.int32).reshape(-1, 2).T
    number = np.array([shares[pair] for pair in sorted(shares)], np.int64)
    return follower_quality(offsets, targets, (sharer, creator, number), np.array(posts, np.int64))


def random_graph(seed: int, rows: int = 30) -> tuple[Pairs, dict[tuple[int, int], int], list[int]]:
    """Random follows, posts and shares, also between users who do not follow each other."""
    random = np.random.default_rng(seed)
    follows = {(a, b) for a, b in random.integers(0, rows, (150, 2)).tolist() if a != b}
    shares = {(a, b): number for a, b, number in random.integers(1, rows, (60, 3)).tolist() if a != b}
    return follows, shares, random.integers(0, 5, rows).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_plain_python(seed: int) -> None:
    """Quality and followers by quality equal those of the second implementation."""
    follows, shares, posts = random_graph(seed)
    found = computed(30, follows, shares, posts)
    expected = naive_quality.quality(
        {(str(a), str(b)) for a, b in follows},
        {(str(a), str(b)): number for (a, b), number in shares.items()},
        {str(user): number for user, number in enumerate(posts)},
    )
    for user, (quality, followers) in expected.items():
        assert found.user[int(user)] == pytest.approx(quality, abs=1e-9)
        assert found.followers[int(user)] == pytest.approx(followers, abs=1e-7)
    assert found.shares.tolist() == [sum(n for (a, _), n in shares.items() if a == row) for row in range(30)]


def test_where_nothing_is_known_all_followers_count() -> None:
    """Without posts all followers count; users without follows have the quality of the assumption."""
    follows = {(a, 0) for a in range(1, 9)}
    found = computed(10, follows, {}, [0] * 10)
    assert found.user[9] == pytest.approx(GENUINE)
    assert found.followers[0] == pytest.approx(8)
    none = computed(3, set(), {}, [4, 0, 1])
    assert none.followers.tolist() == [0, 0, 0]


def test_silent_accounts_that_were_sold_do_not_count() -> None:
    """Of two users with as many followers, the one whose followers share nothing, and follow such users, has fewer."""
    random = np.random.default_rng(5)
    authors, buyers, people, bots = range(20), range(20, 30), range(30, 130), range(130, 170)
    follows = {(p, a) for p in people for a in random.choice(20, 8, replace=False).tolist()}
    follows |= {(p, b) for p in people for b in random.choice(buyers, 1).tolist()}
    follows |= {(bot, b) for bot in bots for b in random.choice(buyers, 6, replace=False).tolist()}
    follows |= {(bot, a) for bot in bots for a in random.choice(20, 2, replace=False).tolist()}
    # People share of what they follow, bots only of authors.
    shares = {(u, a): 1 for u, a in sorted(follows) if random.random() < 0.35 and (u in people or a in authors)}
    found = computed(170, follows, shares, [6] * 30 + [0] * 140)
    assert (found.user[list(people)] > THRESHOLD).mean() > 0.9
    assert (found.user[list(bots)] < THRESHOLD).mean() > 0.9
    for buyer in buyers:
        real = sum((p, buyer) in follows for p in people)
        assert found.followers[buyer] == pytest.approx(real, abs=4)


def test_weights_rise_across_the_threshold() -> None:
    """A follower at the threshold counts half, a sure bot not at all, a person fully."""
    assert weight(np.array([0.1, THRESHOLD, 1.0])).tolist() == pytest.approx([0, 0.5, 1])


def test_damping_lowers_reach_by_the_part_that_counts() -> None:
    """Reach is halved where half of the followers count, and stays where all do."""
    score = np.log1p(np.array([10.0, 10.0, 0.0]))
    lowered = np.expm1(damped(score, np.array([9, 9, 9]), np.array([9.0, 4.0, 4.0])))
    assert lowered.tolist() == pytest.approx([10, 5, 0])
