"""Labels of contents as rows: text, uses, reuse of rows, and what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphstate.memory.labels import LabeledPosts, Labels, label_text, lost_topics, read_labels
from graphstate.storage.store import Store


def test_text_and_back() -> None:
    """The community comes first; topics are distinct, in their order, eight at most."""
    assert read_labels(label_text(["b", "a", "b"], "k")) == ("k", ("b", "a"))
    assert read_labels(label_text([])) == (None, ())
    assert read_labels(label_text(map(str, range(12))))[1] == tuple(map(str, range(8)))


def test_rows_are_freed_and_used_again(tmp_path: Path) -> None:
    """A row that nothing uses is free after the sweep, also one that was never used; stored rows come back."""
    store, labels = Store(tmp_path), Labels()
    one, two, never = (labels.row(label_text([topic])) for topic in "abc")
    labels.use(one)
    labels.use(two)
    labels.sweep(store)
    store.commit()
    assert [bool(text) for text in labels.ids] == [True, True, False]
    labels.release(one)
    labels.sweep(store)
    store.commit()
    assert labels.row(label_text(["d"])) in (one, never)
    stored, loaded = list(store.rows("nodes")), Labels()
    loaded.restore_all([int.from_bytes(key[1:], "big") for key, _ in stored], [value for _, value in stored])
    loaded.count(np.array([two, -1, two], np.int32))
    assert [loaded.ids[two], loaded.uses[two]] == [label_text(["b"]), 2]
    assert loaded.row(label_text(["e"])) == one
    store.close()


def test_topics_have_numbers(tmp_path: Path) -> None:
    """A topic has one number while a row has it; the number is used again afterwards."""
    store, labels = Store(tmp_path), Labels()
    both, one = labels.row(label_text(["a", "b"])), labels.row(label_text(["b"], "k"))
    assert [labels.topic_names[number] for number in labels.topic_rows[both][:2]] == ["a", "b"]
    assert labels.topic_rows[one].tolist() == [labels.topic_rows[both][1], *[-1] * 7]
    assert (labels.community(one), labels.community(both), labels.community(-1)) == ("k", None, None)
    labels.use(one)
    labels.sweep(store)
    assert labels.topic_names == ["", "b"]
    labels.row(label_text(["c"]))
    assert labels.topic_names == ["c", "b"]
    assert (labels.topic_number("b"), labels.topic_number("a")) == (1, -1)
    store.close()


def test_posts_are_chained_by_creator() -> None:
    """A content is in the chain of its creator while it has labels and the creator is this shard's."""
    posts, rng, owned = LabeledPosts(), np.random.default_rng(2), np.array([1, 1, 0, 1], np.uint8)
    labels, creators = np.full(50, -1, np.int32), np.full(50, -1, np.int32)
    posts.update(np.arange(50), labels, creators, owned)
    for _ in range(60):
        rows = rng.permutation(50)[:9]
        labels[rows], creators[rows] = rng.integers(-1, 3, 9), rng.integers(-1, 4, 9)
        posts.update(rows, labels, creators, owned)
        users = np.array([3, 0, 1, 2, 700])
        expected = [
            set(np.flatnonzero((labels >= 0) & (creators == user) & bool(user < 4 and owned[user]))) for user in users
        ]
        places, found = posts.of(users)
        assert [set(found[places == place].tolist()) for place in range(len(users))] == expected
        assert len(found) == sum(map(len, expected))
        assert posts.any_of(users).tolist() == [bool(rows) for rows in expected]


def test_lost_topics() -> None:
    """Only those of this shard's users are listed."""
    unlabeled = [(0, label_text(["a", "b"])), (0, label_text(["b"])), (1, label_text(["c"])), (-1, label_text(["d"]))]
    assert lost_topics(unlabeled, [1, 0]) == {(0, "a"), (0, "b")}
