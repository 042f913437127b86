"""Recovery on one page: a stop after every offset of an input does not change the output. No broker.

A worker reads its log from the offset that its state contains. A stop may come at any offset, before or after the
step there is committed: the restarted worker continues with the same scores, alerts and tombstones.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from graphstate.types import GraphSpec
from model.artifact import untrained
from model.config import ModelConfig
from streams.shard.shard import Outcome, Shard
from tests.support.graphs import DAY, create, delete, follow, forget, share, unfollow, unshare

ARTIFACT = untrained(ModelConfig())
INPUT = [
    *(create(minute, f"author{minute}", f"post{minute}") for minute in range(9)),
    *(share(20 + number, f"fan{number}", f"post{number % 3}") for number in range(9)),
    *(follow(40 + number, f"fan{number}", "author8") for number in range(3)),
    unfollow(50, "fan1", "author8"),
    unshare(51, "fan2", "post2"),
    share(30, "fan7", "post1"),  # late
    forget(60, "fan3"),
    *(share(4 * DAY + number, f"fan{number}", "post8", "author7") for number in range(4, 9)),
    share(5 * DAY, "fan9", "post0"),  # crosses a boundary of the alert rule
    delete(5 * DAY + 1, "author8", "post8"),
]


def output(outcome: Outcome) -> tuple[object, ...]:
    """The output of a step in a canonical order."""
    return sorted(outcome.scores), outcome.alerts, outcome.forgotten


@pytest.mark.parametrize("step_lost", [False, True])
def test_a_restart_at_any_offset_does_not_change_the_output(tmp_path: Path, *, step_lost: bool) -> None:
    """Closed after each commit, or stopped between a step and its commit, a shard publishes the same output."""
    uncut, expected = Shard.open(tmp_path / "uncut", ARTIFACT, GraphSpec()), []
    for offset, event in enumerate(INPUT):
        expected.append(output(uncut.step([event])))
        uncut.commit(offset + 1)
    uncut.close()

    published = []
    for offset, event in enumerate(INPUT):
        if step_lost:
            shard = Shard.open(tmp_path / "cut", ARTIFACT, GraphSpec())
            shard.step([event])
            shard.close()
        shard = Shard.open(tmp_path / "cut", ARTIFACT, GraphSpec())
        assert shard.next_offset == offset
        published.append(output(shard.step([event])))
        shard.commit(offset + 1)
        shard.close()

    assert published == expected
    scores, alerts, withdrawals = zip(*expected, strict=True)
    assert [alert.user for some in alerts for alert in some] == ["author1", "author8"]
    assert (sum(map(len, scores)) > len(INPUT), [*filter(None, withdrawals)]) == (True, [["fan3"]])
