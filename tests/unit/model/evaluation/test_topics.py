"""What topics add: histories before each post, and figures on generated posts."""

from __future__ import annotations

import numpy as np
import pytest

from model.errors import TrainingError
from model.evaluation import topics
from model.evaluation.topics import Posts

HOUR = 3_600_000_000


def generated(posts: int, *, by_topic: float, seed: int = 0) -> Posts:
    """Return posts, one an hour, whose reach depends on the author, and on the topic as much as `by_topic`."""
    random = np.random.default_rng(seed)
    author, topic = random.integers(20, size=posts), random.integers(10, size=posts)
    level = random.normal(1.0, 0.5, 20)[author] + by_topic * random.normal(0, 1, 10)[topic]
    reach = random.poisson(np.exp(level))
    time = np.arange(posts) * HOUR
    shares = [time[k] + np.arange(1, n + 1) * 1_000_000 for k, n in enumerate(reach)]
    return Posts(time, author, [(int(one),) for one in topic], shares, int(time[-1]) + 4 * HOUR, 2 * HOUR)


def test_history_is_what_was_known() -> None:
    """A share at or after a post is unknown to it; the author on the topic has fewer posts than the author."""
    shares = [np.array([5, 20]), np.array([], np.int64), np.array([], np.int64)]
    posts = Posts(np.array([0, 10, 20]), np.array([1, 1, 1]), [(1,), (2,), (1, 2)], shares, 100, 50)
    history = topics.histories(posts)
    assert history["author"].count.tolist() == [0, 1, 2]
    assert history["topic"].count.tolist() == [0, 0, 2]
    assert history["both"].count.tolist() == [0, 0, 2]
    np.testing.assert_allclose(history["author"].log_reach, [0, np.log(2), np.log(2)])


def test_excess_of_a_topic() -> None:
    """A topic's posts exceed what was known of their authors when they were made; young posts count in part."""
    shares = [np.arange(1, 8), np.array([25]), np.array([], np.int64)]
    posts = Posts(np.array([0, 20, 30]), np.array([1, 2, 3]), [(1,), (1,), (1,)], shares, 100, 10)
    means, excess = topics.excesses(posts, np.array([True, False, False]), 0.5)
    np.testing.assert_allclose(means, 0.5)
    # The first post is complete after its horizon; the second has had its horizon, too, before the third.
    first, second = np.log(8) - 0.5, np.log(2) - 0.5
    np.testing.assert_allclose(excess, [0, first / 11, (first + second) / 12])


def test_a_topic_that_matters_is_found() -> None:
    """Where the topic decides, it adds much; where it does not, nothing beyond chance."""
    found = {}
    for by_topic in (0.0, 1.0):
        report = topics.evaluate(generated(600, by_topic=by_topic), draws=10)
        differences = {(one["name"], one["minus"]): one["spearman"] for one in report["paired"]}
        found[by_topic] = differences["LightGBM: author, author on the topic, topic", "LightGBM: author"]
        grown = "mean of the author, young posts by their growth"
        assert (differences[f"{grown} + excess of the topic", grown]["low"] > 0.1) == (by_topic == 1.0)
    assert found[1.0]["low"] > 0.1
    assert found[0.0]["value"] < 0.05


def test_no_topics() -> None:
    """Without topics the error names what is missing."""
    posts = generated(300, by_topic=0)
    with pytest.raises(TrainingError, match="topics"):
        topics.evaluate(Posts(posts.time, posts.author, [() for _ in posts.topics], posts.shares, posts.end, 1))
