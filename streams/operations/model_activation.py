"""An operator's side of `groundswell model use`: first every shard makes the artifact ready, then all of them use it.

As long as one shard has not said that it is ready nothing is changed; where one refuses afterwards, what was in use
before is put back.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from model.artifact import Artifact
from streams.errors import ModelRefused
from streams.worker.rollout.models_topic import (
    POLL_S,
    TRIAL_S,
    TRY,
    USE,
    Deployment,
    ModelsTopicMessage,
    ModelsTopicWriter,
    RolloutState,
    ShardStatus,
    encode,
    new_deployment,
)


@dataclass
class Used:
    """What came of an order. before: the version in use before, None: what the workers' settings say. live: whether
    workers were running. ready_s, serving_s: seconds until all shards were ready, and from there until all served it.
    """

    version: str
    before: str | None
    live: bool
    ready_s: float = 0.0
    serving_s: float = 0.0


class Ordering:
    """Puts artifacts to use.

    Args:
        desk: the models topic.
        shards: how many there are.
        live: whether workers are running.
        timeout_s: how long every shard together may take to be ready, and then again to serve.
        tell: is told of each shard's answer.
    """

    def __init__(
        self,
        desk: ModelsTopicWriter,
        shards: int,
        *,
        live: bool,
        timeout_s: float,
        tell: Callable[[ShardStatus], None] = lambda _: None,
    ) -> None:
        self._desk, self._shards, self._live = desk, shards, live
        self._timeout_s, self._tell = timeout_s, tell

    async def use(self, artifact: Artifact) -> Used:
        """Put an artifact to use in all shards, or in none.

        Raises:
            ModelRefused: a shard refused it, or did not answer; what was in use before still is.
            BrokerError: Kafka did not take a message.
        """
        notices, desk = self._desk.state, self._desk
        if notices.trial is not None and time.time() - notices.trial_time_ms / 1_000 < TRIAL_S:
            raise ModelRefused(
                f"version {notices.trial.version} is just being tried: wait until that command has ended, or at most "
                f"{TRIAL_S / 60:.0f} minutes where it was killed"
            )
        before = notices.use
        order, parts = new_deployment(artifact, uuid.uuid4().hex[:12])
        used = Used(order.version, before.version if before else None, self._live)
        await desk.write(*parts)
        try:
            if self._live:
                await desk.write(ModelsTopicMessage(TRY, encode(order)))
                used.ready_s = await self._answers(order, "ready")
            await desk.write(ModelsTopicMessage(USE, encode(order)))
            if self._live:
                used.serving_s = await self._serving(order, before)
        finally:
            await desk.write(ModelsTopicMessage(TRY, None))
        await desk.read(POLL_S)
        await desk.write(*notices.tombstones({order.version, before.version if before else ""}))
        return used

    async def _serving(self, order: Deployment, before: Deployment | None) -> float:
        try:
            return await self._answers(order, "serving")
        except ModelRefused as error:
            await self._desk.write(ModelsTopicMessage(USE, encode(before) if before else None))
            raise ModelRefused(f"{error}; the shards that had changed go back") from error

    async def _answers(self, order: Deployment, state: RolloutState) -> float:
        """Wait until every shard has answered; returns how long that took (s)."""
        begin, seen = time.monotonic(), set[int]()
        while len(seen) < self._shards:
            if time.monotonic() - begin > self._timeout_s:
                late = ", ".join(str(shard) for shard in range(self._shards) if shard not in seen)
                raise ModelRefused(
                    f"shard {late} did not say in {self._timeout_s:.0f} s that it is {state}: are all workers up, and "
                    "of this release? What was in use before still is"
                )
            await self._desk.read(POLL_S)
            for shard, answer in sorted(self._desk.state.shards.items()):
                if answer.deployment_id != order.id or shard in seen or shard >= self._shards:
                    continue
                if answer.state == "refused":
                    who = f"shard {shard} ({answer.worker})"
                    raise ModelRefused(
                        f"{who} refused version {order.version}, what was in use before still is: {answer.error}"
                    )
                if answer.state == state:
                    seen.add(shard)
                    self._tell(answer)
        return time.monotonic() - begin
