"""Register tables: the same as a dictionary, whatever is added, replaced and removed."""

from __future__ import annotations

import random

from graphstate.storage.pair_tables import PairTable, pair_key


def test_a_table_is_a_dictionary() -> None:
    """Random changes of colliding keys leave what a dictionary holds, through several sizes of the table."""
    rng, table, truth = random.Random(1), PairTable(2), dict[tuple[int, int], tuple[int, int]]()
    for step in range(20_000):
        pair = rng.randrange(60), rng.randrange(60)
        if rng.random() < 0.4:
            table.remove(*pair)
            truth.pop(pair, None)
        else:
            table.put(*pair, (step, -step))
            truth[pair] = step, -step
        if step % 2_000 == 0:
            table.reserve(step)
    assert len(table) == len(truth)
    assert {key: (one, two) for key, one, two in table.entries().tolist()} == {
        pair_key(*pair): values for pair, values in truth.items()
    }
    for pair in ((first, second) for first in range(60) for second in range(60)):
        entry = table.get(*pair)
        assert (None if entry is None else tuple(entry[1:].tolist())) == truth.get(pair)
