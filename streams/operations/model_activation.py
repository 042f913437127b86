"""The operator's side of `groundswell model use`: every shard prepares the artifact, then all of them serve it.

Nothing changes until every shard has reported that it is ready. If a shard refuses after that, the artifact that was in
use before is restored.
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
class ActivationResult:
    """Result of an activation.

    Attributes:
        version: Version of the artifact that is in use now.
        before: Version that was in use before; None if the workers used the artifact of their settings.
        live: Whether workers were running.
        ready_s: Seconds until all shards were ready.
        serving_s: Seconds from there until all shards served the artifact.
    """

    version: str
    before: str | None
    live: bool
    ready_s: float = 0.0
    serving_s: float = 0.0


class ModelActivation:
    """Activates artifacts on all shards.

    Args:
        topic: The models topic.
        shards: Number of shards.
        live: Whether workers are running.
        timeout_s: Time that all shards together have to become ready, and the same again to serve.
        on_answer: Receives each shard's answer.
    """

    def __init__(
        self,
        topic: ModelsTopicWriter,
        shards: int,
        *,
        live: bool,
        timeout_s: float,
        on_answer: Callable[[ShardStatus], None] = lambda _: None,
    ) -> None:
        self._topic, self._shards, self._live = topic, shards, live
        self._timeout_s, self._on_answer = timeout_s, on_answer

    async def activate(self, artifact: Artifact) -> ActivationResult:
        """Activate an artifact on all shards, or on none.

        Raises:
            ModelRefused: a shard refused it or did not answer; the artifact that was in use before still is.
            BrokerError: Kafka did not acknowledge a message.
        """
        topic, notices = self._topic, self._topic.state
        if notices.trial is not None and time.time() - notices.trial_time_ms / 1_000 < TRIAL_S:
            raise ModelRefused(
                f"another command is activating version {notices.trial.version}: wait until that command has ended, "
                f"or {TRIAL_S / 60:.0f} minutes if it was killed"
            )
        before = notices.use
        deployment, parts = new_deployment(artifact, uuid.uuid4().hex[:12])
        result = ActivationResult(deployment.version, before.version if before else None, self._live)
        await topic.write(*parts)
        try:
            if self._live:
                await topic.write(ModelsTopicMessage(TRY, encode(deployment)))
                result.ready_s = await self._wait_for_answers(deployment, "ready")
            await topic.write(ModelsTopicMessage(USE, encode(deployment)))
            if self._live:
                result.serving_s = await self._wait_until_serving(deployment, before)
        finally:
            await topic.write(ModelsTopicMessage(TRY, None))
        await topic.read(POLL_S)
        await topic.write(*notices.tombstones({deployment.version, before.version if before else ""}))
        return result

    async def _wait_until_serving(self, deployment: Deployment, before: Deployment | None) -> float:
        try:
            return await self._wait_for_answers(deployment, "serving")
        except ModelRefused as error:
            await self._topic.write(ModelsTopicMessage(USE, encode(before) if before else None))
            raise ModelRefused(f"{error}; the shards that had changed return to it") from error

    async def _wait_for_answers(self, deployment: Deployment, state: RolloutState) -> float:
        """Wait until every shard has reported a state; return the seconds that it took."""
        begin, reported = time.monotonic(), set[int]()
        while len(reported) < self._shards:
            if time.monotonic() - begin > self._timeout_s:
                late = ", ".join(str(shard) for shard in range(self._shards) if shard not in reported)
                raise ModelRefused(
                    f"shard {late} did not report within {self._timeout_s:.0f} s that it is {state}: check that all "
                    "workers run, and are of this release; the artifact that was in use before still is"
                )
            await self._topic.read(POLL_S)
            for shard, answer in sorted(self._topic.state.shards.items()):
                if answer.deployment_id != deployment.id or shard in reported or shard >= self._shards:
                    continue
                if answer.state == "refused":
                    raise ModelRefused(
                        f"shard {shard} ({answer.worker}) refused version {deployment.version}, the artifact that was "
                        f"in use before still is: {answer.error}"
                    )
                if answer.state == state:
                    reported.add(shard)
                    self._on_answer(answer)
        return time.monotonic() - begin
