"""The messages of the rounds of a judgement that have arrived, by boundary and shard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from graphstate.types import Mutation
from streams.shard.alerts import messages
from streams.shard.alerts.messages import ShardCandidates, ShardCounts, SharerFigures


class Rounds:
    """Messages of all shards about boundaries that are not judged yet.

    Args:
        rule: What identifies the parameters of the rule; messages of shards with another rule are only kept.

    Attributes:
        counts, candidates, sharers: Messages of the three rounds, by boundary (µs), then by shard.
        other: The newest messages of shards with another rule, by shard and kind: a shard that has it already waits for
            this one, which may get it, too.
    """

    def __init__(self, rule: str) -> None:
        self._rule = rule
        self.counts: dict[int, dict[int, ShardCounts]] = {}
        self.candidates: dict[int, dict[int, ShardCandidates]] = {}
        self.sharers: dict[int, dict[int, list[SharerFigures]]] = {}
        self.other: dict[tuple[int, str], Mutation] = {}

    def receive(self, message: Mutation) -> None:
        """Add a message."""
        stage, _, rule = message.other.partition(messages.OF_RULE)
        if rule != self._rule:
            self.other[message.at, message.other] = message
            return
        boundary, sender = message.time, message.at
        if stage == messages.COUNTS:
            self.counts.setdefault(boundary, {})[sender] = messages.read_counts(message.extra)
        elif stage == messages.CANDIDATES:
            self.candidates.setdefault(boundary, {})[sender] = messages.read_candidates(message.extra)
        else:
            self.sharers.setdefault(boundary, {})[sender] = messages.read_sharers(message.extra)

    def close(self, boundary: int) -> None:
        """Remove the messages of a boundary that is judged."""
        for round_ in (self.counts, self.candidates, self.sharers):
            round_.pop(boundary, None)

    def missing(self, boundary: int, shards: int) -> list[int]:
        """Return the shards whose message is missing in the first round of a boundary that is not complete."""
        for round_ in (self.counts, self.candidates, self.sharers):
            arrived: Mapping[int, Any] = round_.get(boundary, {})
            if len(arrived) < shards:
                return [shard for shard in range(shards) if shard not in arrived]
        return []

    # On disk

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        rounds = {"counts": self.counts, "candidates": self.candidates, "sharers": self.sharers}
        state: dict[str, Any] = {"rule": self._rule, "other": [list(message) for message in self.other.values()]}
        for name, round_ in rounds.items():
            state[name] = [
                [at, shard, msgspec.to_builtins(own)]
                for at, all_ in round_.items()  # type: ignore[attr-defined]
                for shard, own in all_.items()
            ]
        return state

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Load what `to_json` returned; return False if it is of another rule, of which only `other` is read."""
        for message in state["other"]:
            self.receive(Mutation(*message))
        if state["rule"] != self._rule:
            return False
        for at, shard, own in state["counts"]:
            self.counts.setdefault(at, {})[shard] = msgspec.convert(own, ShardCounts)
        for at, shard, own in state["candidates"]:
            self.candidates.setdefault(at, {})[shard] = msgspec.convert(own, ShardCandidates)
        for at, shard, own in state["sharers"]:
            self.sharers.setdefault(at, {})[shard] = msgspec.convert(own, list[SharerFigures])
        return True
