"""Which worker of the group has a shard: for requests about users of shards that this worker does not have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from graphstate.types import owner
from streams.errors import BrokerError, NotAllowed
from streams.kafka.consumer.assignor import decode_member
from streams.kafka.topics import Topics, admin, with_coordinator
from streams.settings.settings import Settings

KEPT_S = 5.0
"""Seconds for which an answer of Kafka is used again."""


class Owner(NamedTuple):
    """A shard and the worker that has it: host and web address, None if no worker has it or they are unknown."""

    shard: int
    worker: str | None
    url: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the API's response."""
        return self._asdict()


class ShardOwners:
    """Asks Kafka which member of the consumer group has which shard.

    Args:
        settings: how to reach Kafka; the group and the number of shards.
        now: monotonic seconds.
    """

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._now = settings, now
        self._owners: dict[int, Owner] = {}
        self._asked_s = -KEPT_S
        self._lock = asyncio.Lock()

    def shard_of(self, user: str) -> int:
        """Return the shard that owns a user."""
        return owner(user, self._settings.shards)

    async def owner_of(self, user: str) -> Owner:
        """Return the shard of a user, and the worker that has it."""
        shard = self.shard_of(user)
        async with self._lock:
            if self._now() - self._asked_s >= KEPT_S:
                self._owners = await asyncio.to_thread(self._ask)
                self._asked_s = self._now()
        return self._owners.get(shard, Owner(shard, None, None))

    def _ask(self) -> dict[int, Owner]:
        group, log = self._settings.consumer_group, Topics(self._settings).mutations.name
        try:
            with admin(self._settings) as client:
                members = with_coordinator(lambda: client.describe_groups([group]), KEPT_S)[group]["members"]
        except (BrokerError, NotAllowed):
            # The shard alone is an answer, too; the broker's errors are reported by the worker itself.
            return {}
        owners: dict[int, Owner] = {}
        for member in members:
            assigned = (member["member_assignment"] or {}).get("assigned_partitions", [])
            user_data = (member["member_metadata"] or {}).get("user_data") or ""
            url = decode_member(user_data).web or None
            shards = (shard for topic in assigned if topic["topic"] == log for shard in topic["partitions"])
            owners |= {shard: Owner(shard, member["client_host"].lstrip("/") or None, url) for shard in shards}
        return owners
