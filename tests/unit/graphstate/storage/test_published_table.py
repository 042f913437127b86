"""What was published: each change is written once with its last value, and loads again."""

from __future__ import annotations

import numpy as np

from graphstate.storage.published_table import PublishedTable
from graphstate.storage.row_layouts import NEVER


def table(*published: tuple[int, float]) -> PublishedTable:
    """Return a table in which reach was published by row."""
    made = PublishedTable()
    for row, reach in published:
        made.ensure_capacity(row + 1)
        made.reach[row], made.percentile[row] = reach, 50
        made.mark(np.array([row]))
    return made


def test_a_row_marked_twice_is_written_once_with_its_last_value() -> None:
    """Two commits' changes, loaded in their order, give the columns again; unmarked rows are not written."""
    first, again = table((2, 1.5), (700, 2.5), (2, 3.5)), PublishedTable()
    changes = first.take_changes()
    assert changes[:, 0].tolist() == [2, 700]
    assert not len(first.take_changes())
    again.load(changes)
    first.alerted[2] = 9
    first.mark(np.array([2]))
    again.load(first.take_changes())
    np.testing.assert_array_equal(again.reach[:701], first.reach[:701])
    np.testing.assert_array_equal(again.alerted[:701], first.alerted[:701])
    assert again.dump().tolist() == first.dump().tolist()


def test_outdated_entries_are_not_current() -> None:
    """An entry with an earlier value is dropped; one of an invalidated user only once no older entry is left."""
    published = table((1, 1.0), (2, 2.0))
    old = published.take_changes()
    published.reach[1] = 4
    published.invalidate(np.array([2]))
    new = published.take_changes()
    assert published.current(old, keep_gone=True).tolist() == [False, False]
    published.mark(np.array([1]))
    assert published.current(old, keep_gone=True).tolist() == [True, False]  # not replaced on disk yet
    new = np.concatenate([new, published.take_changes()])
    assert published.current(new, keep_gone=True).tolist() == [True, True]
    assert published.current(new, keep_gone=False).tolist() == [False, True]
    published.invalidate_all()
    assert np.isnan(published.reach).all()
    assert (published.alerted == NEVER).all()
