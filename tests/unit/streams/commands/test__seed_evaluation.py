"""Lists of seeds on held-out posts, on a small history whose answer is known."""

from __future__ import annotations

import pytest

from graphstate.types import Kind, Mutation
from streams.commands._seed_evaluation import SERVED, evaluate
from streams.errors import InputError

DAY = 86_400_000_000
START = 20_000 * DAY


def society() -> list[Mutation]:
    """Three authors whose posts four, two and no people share, always the same; the first two share two people."""
    people = {"a": "1234", "b": "34", "c": ""}
    events = []
    for number in range(40):
        for place, (author, sharers) in enumerate(people.items()):
            time, content = START + number * 4 * DAY + place, f"{author}{number}"
            events.append(Mutation(Kind.CREATE, time, author, content))
            events += [Mutation(Kind.SHARE, time + 1_000_000, f"u{sharer}", content) for sharer in sharers]
    return events


def test_each_list_is_measured_on_the_next_posts() -> None:
    """One seed of the served list reaches the four people of the best author in each window, random lists fewer."""
    results = {result.name: result for result in evaluate(society(), 86_400, -1, (1, 2))}
    assert results[SERVED].reached == [4] * 5
    # All posts of an author are alike here, so hindsight gives nothing more.
    assert [result.reached for name, result in results.items() if name.startswith("hindsight")] == [[4] * 5] * 2
    best = next(result for result in evaluate(society(), 86_400, -1, (1,)) if result.name.startswith("served"))
    assert best.reached == [4] * 5
    assert best.ratio == pytest.approx(2, rel=0.2)


def test_too_few_posts_are_refused() -> None:
    """A history with a handful of posts is refused with one line."""
    with pytest.raises(InputError, match="too few"):
        evaluate(society()[:10], 86_400, -1, (1,))
