"""Messages of the rounds: those of shards with another rule wait until this shard has it."""

from __future__ import annotations

from streams.shard.alerts import messages
from streams.shard.alerts.messages import Candidate, ShardCounts, SharerFigures
from streams.shard.alerts.rounds import Rounds

COUNTS = ShardCounts({0: 3}, {5: 1}, 70)


def test_state() -> None:
    """What arrived is stored and loaded; the rounds are complete one after the other."""
    rounds = Rounds("rule")
    assert rounds.missing(60, 2) == [0, 1]
    for shard in (0, 1):
        rounds.receive(messages.counts(60, shard, "rule", COUNTS))
    candidate = Candidate(5, 1, 1 << 63, 4, 3, (1 << 63, 7))
    rounds.receive(messages.candidates(60, 1, "rule", {messages.SHIPPED: [candidate]}))
    assert rounds.missing(60, 2) == [0]
    rounds.candidates[60][0] = {messages.SHIPPED: []}
    rounds.receive(messages.sharers(60, 0, "rule", [SharerFigures(7, 3, 2)]))
    assert rounds.missing(60, 2) == [1]
    loaded = Rounds("rule")
    assert loaded.restore(rounds.to_json())
    assert (loaded.counts, loaded.candidates, loaded.sharers) == (rounds.counts, rounds.candidates, rounds.sharers)
    loaded.close(60)
    assert loaded.missing(60, 2) == [0, 1]


def test_another_rule() -> None:
    """The newest message of each kind from a shard with the next rule is found when this shard changes, too."""
    rounds = Rounds("old")
    for boundary in (60, 120):
        rounds.receive(messages.counts(boundary, 1, "new", COUNTS))
    rounds.receive(messages.counts(60, 1, "old", COUNTS))
    changed = Rounds("new")
    assert not changed.restore(rounds.to_json())
    assert changed.counts == {120: {1: COUNTS}}
