"""Questions about users: rankings by tier, growth and topic, a user's figures, and two users side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model.evaluation import pair_odds
from streams.errors import InputError
from streams.messages.headers import rfc3339
from streams.settings.tiers import Tiers
from streams.shard import user_reads
from streams.shard.user_reads import MEASURES, Ranking

if TYPE_CHECKING:
    from streams.worker.web.state import Source

GROWTH = "growth_7d"
"""The measure that `growth` means."""
DIFFERENCES = 8


class Users:
    """Answers from all open shards of a worker.

    Args:
        source: The open shards.
        tiers: The tiers.
    """

    def __init__(self, source: Source, tiers: Tiers) -> None:
        self._source, self.tiers = source, tiers

    def ranking(self, tier: str, by: str, topic: str) -> Ranking:
        """Return the ranking that a question asks for.

        Raises:
            InputError: There is no such tier or measure.
        """
        by = GROWTH if by == "growth" else by or "reach"
        if by not in MEASURES:
            raise InputError(f"by must be one of {', '.join(MEASURES)}, not {by}")
        if tier and tier not in self.tiers.bounds:
            raise InputError(f"tier must be one of {', '.join(self.tiers.bounds)}, not {tier}")
        least, below = self.tiers.bounds[tier] if tier else (0, 1 << 62)
        return Ranking(by, least, below, topic)

    async def ranked(self, n: int, wanted: Ranking) -> list[dict[str, Any]]:
        """Return the first n users of a ranking over all open shards."""
        lists = await self._source.read(lambda shard: user_reads.ranked(shard, n, wanted))
        entries = sorted((entry for each in lists for entry in each), key=lambda one: (-one["value"], one["user"]))
        return [self.with_tier(entry) | {"as_of": rfc3339(entry["as_of"])} for entry in entries[:n]]

    def with_tier(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return figures with their tier."""
        return {**entry, "tier": self.tiers.of(entry.get("followers", 0))}

    async def tier_sizes(self) -> dict[str, int]:
        """Return the number of live users of each tier."""
        bounds = list(self.tiers.bounds.values())
        sizes = await self._source.read(lambda shard: user_reads.sizes(shard, bounds))
        return {name: sum(each[k] for each in sizes) for k, name in enumerate(self.tiers.bounds)}

    async def content(self, content_id: str) -> dict[str, Any] | None:
        """Return creator, labels and sharers of a content; None if no open shard has a create of it."""
        contents = await self._source.read(lambda shard: user_reads.content(shard, content_id))
        return next(({**one, "created": rfc3339(one["created"])} for one in contents if one), None)

    async def on_topic(self, user_id: str, topic: str) -> dict[str, Any] | None:
        """Return posts and reach of a user on a topic; None without posts on it."""
        answers = await self._source.read(lambda shard: user_reads.on_topic(shard, user_id, topic))
        return next((one for one in answers if one), None)

    async def compare(self, a: str, b: str) -> dict[str, Any] | None:
        """Return two users side by side; None if one of them is in no open shard."""
        sides = []
        for user_id in (a, b):
            score = await self._source.user(user_id)
            if score is None:
                return None
            sides.append(self.with_tier(score) | {"as_of": rfc3339(score["as_of"])})
        one, other = sides
        features = [
            {"feature": name, "a": value, "b": other["features"][name]}
            for name, value in one["features"].items()
            if value != other["features"][name]
        ]
        features.sort(key=lambda each: -abs(each["a"] - each["b"]))
        return {
            "a": _side(one),
            "b": _side(other),
            "reach_ratio": (1 + one["reach"]) / (1 + other["reach"]),
            "features": features[:DIFFERENCES],
            "odds": {"chance_a": pair_odds.chance(one, other), "log_odds": pair_odds.parts(one, other)},
        }


def _side(side: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in side.items() if name not in {"features", "topics", "communities"}}
