"""Chains: several in one pool, entries removed anywhere and used again."""

from __future__ import annotations

import random

from graphstate.storage.chains import Chains


def test_chains_are_lists() -> None:
    """Random changes of three chains leave what lists hold; the pool does not grow beyond what was held at once."""
    rng, chains = random.Random(2), Chains(2)
    heads, truth = [-1, -1, -1], [list[tuple[int, int]](), [], []]
    for step in range(5_000):
        number = rng.randrange(3)
        if truth[number] and (rng.random() < 0.5 or sum(map(len, truth)) > 200):
            entry = rng.choice(truth[number])
            truth[number].remove(entry)
            heads[number] = chains.unlink(heads[number], *entry)
        else:
            truth[number].insert(0, (step, step % 7))
            heads[number] = chains.push(heads[number], step, step % 7)
    for head, entries in zip(heads, truth, strict=True):
        assert [tuple(entry) for entry in chains.entries(head).tolist()] == entries
    assert chains.ends[0] <= 202
    assert chains.unlink(heads[0], -1, -1) == heads[0]
