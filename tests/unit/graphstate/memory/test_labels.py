"""Labels of contents as rows: text, uses, reuse of rows, and what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphstate.memory.labels import Labels, label_text, read_labels
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
