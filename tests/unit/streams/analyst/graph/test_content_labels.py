"""Topics of contents, and who shared whom on them, against the naive graph."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from graphstate.event_columns import EventColumns
from graphstate.memory.labels import label_text, read_labels
from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.types import GraphSpec, Kind, Mutation
from streams.analyst.graph.content_labels import NOTE_BYTES, ContentLabels
from tests.support.analysts import DAY, START, Follower
from tests.support.strategies import RETAINED, history

LABELS = int(Kind.LABELS)
TOPICS = ("p", "q", "none")


def labelled(seed: int, count: int) -> list[list[Mutation]]:
    """A random history in which most creates have labels; a create and its labels are one group."""
    rng, groups = random.Random(seed), []
    for event in history(seed, count):
        if event.kind == Kind.LABELS:
            continue
        group = [event]
        if event.kind == Kind.CREATE and rng.random() < 0.8:
            text = label_text(rng.choice(("p", "pq", "", "r")), rng.choice((None, "k")))
            group.append(event._replace(kind=LABELS, extra=text))
        groups.append(group)
    return groups


def naive(events: list[Mutation], spec: GraphSpec, topic: str) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """Shares on a topic by sharer and creator, and contents on it by creator, from the set of events."""
    graph = NaiveGraph(spec)
    graph.apply(events)
    ties: Counter[tuple[str, str]] = Counter()
    posts: Counter[str] = Counter()
    for content in graph.derive()[0].values():
        if content.has_create and content.labels and topic in read_labels(content.labels)[1]:
            posts[content.creator] += 1
            ties.update((share.user, content.creator) for share in content.shares)
    return ties, posts


def kept(follower: Follower, topic: str) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """The same from the registers."""
    registers = follower.registers
    ids = registers.users.ids
    pairs, posts = registers.shares_on(topic, len(ids))
    ties = {(ids[sharer], ids[creator]): shared for sharer, creator, shared in zip(*map(list, pairs), strict=True)}
    return Counter(ties), Counter({ids[row]: count for row, count in enumerate(posts.tolist()) if count})


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("seed", [1, 2])
def test_shares_on_a_topic_equal_those_of_the_naive_graph(shards: int, seed: int) -> None:
    """Shuffled, partly doubled and with competing creates, deletes and forgets, any number of shards."""
    groups = labelled(seed, 600)
    shuffled = groups + groups[::3]
    random.Random(seed).shuffle(shuffled)
    follower, applied = Follower(GraphSpec(window=0), shards), []
    found = 0
    for begin in range(0, len(shuffled), 150):
        batch = [event for group in shuffled[begin : begin + 150] for event in group]
        follower.apply(batch)
        follower.take()
        applied += batch
        for topic in TOPICS:
            expected = naive(applied, GraphSpec(window=0), topic)
            assert kept(follower, topic) == expected
            found += len(expected[0])
    assert found > 20


def test_they_do_with_retention() -> None:
    """Shares behind the retention do not count, and evicted contents have no labels."""
    spec = replace(RETAINED[2], window=0)
    groups = sorted(labelled(5, 600), key=lambda group: group[0].time)
    follower = Follower(spec)
    for group in groups:
        follower.apply(group)
    follower.take()
    events = [event for group in groups for event in group]
    for topic in TOPICS:
        assert kept(follower, topic) == naive(events, spec, topic)
    late = Mutation(Kind.SHARE, max(event.time for event in events) + 400 * DAY, "a", "x")
    follower.apply([late])
    follower.take()
    assert kept(follower, "p") == (Counter(), Counter())
    assert follower.registers._labels.memory_bytes == 0


def test_labels_without_their_create_are_skipped() -> None:
    """They take no memory, as nothing would free them."""
    labels = ContentLabels()
    event = Mutation(LABELS, START, "u", "c", label_text("p"))
    labels.note(EventColumns.of([event]), {}, {"u": 0})
    assert labels.memory_bytes == 0
    labels.note(EventColumns.of([event]), {"c": 0}, {"u": 0})
    assert labels.memory_bytes == NOTE_BYTES
    labels.free(0)
    assert labels.memory_bytes == 0
