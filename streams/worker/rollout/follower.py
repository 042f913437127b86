"""The worker's side of `groundswell model use`: its shards serve the artifact that the models topic has in use.

    a deployment to try     each shard builds and checks the engine beside the serving one, then sends its status
    a deployment to use     each shard switches between two micro-batches, announces its nodes under the new version
                            to the other shards, then sends its status

A shard that is opened later starts with the artifact in use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from time import monotonic
from typing import Protocol, TypeVar

from aiokafka.errors import KafkaError

from model.artifact import Artifact
from model.engine.cpu import MakeBackend
from model.errors import ArtifactError
from model.evaluation.calibration import IDENTITY, CalibrationMap
from streams.errors import ModelRefused, StaleStep
from streams.kafka.access.rights import refused
from streams.shard.shard import Shard
from streams.worker.inspection.reference_process import ReferenceProcess
from streams.worker.inspection.user_audit import UserSnapshot
from streams.worker.lifecycle import WorkerPart
from streams.worker.processing.shard_host import ShardHost
from streams.worker.rollout.engine_replacement import EngineReplacement, check_user
from streams.worker.rollout.models_topic import (
    SHARD,
    TRIAL_S,
    Deployment,
    ModelsTopicMessage,
    ModelsTopicReader,
    RolloutState,
    ShardStatus,
    encode,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

POLL_S = 1.0
UP_TO_DATE_S = 60.0
"""Maximum wait until a shard has applied its log and the queued readers of hubs; then the artifact is refused."""
AGAIN_S = 0.1
SAMPLE = 12
"""Users per shard that are compared with the reference."""


class ShardSteps(Protocol):
    """The part of the shard agent that runs work between two micro-batches."""

    async def run_between_steps(self, partition: int, work: Callable[[Shard], T]) -> T:
        """Run work on a shard between two micro-batches and return its result."""
        ...

    async def switch(self, partition: int, take_over: Callable[[Shard], None]) -> None:
        """Replace the artifact of a shard between two micro-batches."""
        ...

    async def announce(self, partition: int) -> None:
        """Announce the nodes of a shard to the other shards, unless that was done."""
        ...


class RolloutFollower(WorkerPart):
    """Applies the models topic to all open shards of a worker.

    Args:
        reader: Reads the models topic.
        host: The open shards.
        steps: Runs work between their micro-batches.
        make_engine: Creates an engine.
        configured: The artifact to serve while the topic has none in use.
        worker: Name of this worker, for operators.
        send: Sends a message to the topic under the worker's lease.
        on_switch: Called with the partition of a shard that serves another artifact now.

    Attributes:
        artifact: The artifact in use.
    """

    def __init__(
        self,
        reader: ModelsTopicReader,
        host: ShardHost,
        steps: ShardSteps,
        make_engine: MakeBackend,
        configured: Artifact,
        worker: str,
        send: Callable[[ModelsTopicMessage], Awaitable[None]],
        on_switch: Callable[[int], None],
    ) -> None:
        self.artifact = self._configured = configured
        self._reader, self._host, self._steps, self._make_engine = reader, host, steps, make_engine
        self._worker, self._send, self._on_switch = worker, send, on_switch
        self._replacements: dict[int, EngineReplacement] = {}
        self._sent: dict[int, ShardStatus] = {}
        self._trial_artifact: Artifact | None = None
        self._reference: tuple[str, ReferenceProcess] | None = None
        self._random = Random()

    @property
    def posts(self) -> dict[int, bytes]:
        """The encoded closed posts of each shard."""
        return self._reader.state.posts

    @property
    def history(self) -> dict[str, bytes]:
        """The encoded decisions of the trainer, by id."""
        return self._reader.state.history

    @property
    def version(self) -> str:
        """Version of the artifact in use."""
        return self.artifact.version

    @property
    def calibration(self) -> CalibrationMap:
        """The map from the scores of the artifact in use to persons."""
        return self._reader.state.calibrations.get(self.artifact.version, IDENTITY)

    async def open(self) -> None:
        """Read the topic and load the artifact in use.

        Raises:
            BrokerError: Kafka cannot be reached.
            ArtifactError: The artifact in use is incomplete on the topic.
        """
        await self._reader.open()
        self._update_artifact()

    def _update_artifact(self) -> None:
        use = self._reader.state.use
        version = use.version if use else self._configured.version
        if version != self.artifact.version:
            self.artifact = self._reader.state.artifact(use) if use else self._configured
            log.info("artifact_in_use_changed", extra={"version": version})

    async def run(self) -> None:
        """Follow the topic until cancelled; raise the error that must stop the worker."""
        while True:
            try:
                await self._reader.read(POLL_S)
                await self.follow()
            except KafkaError as error:
                if refused(error):
                    raise
                # aiokafka logs this itself and reconnects once Kafka is back.
                await asyncio.sleep(POLL_S)
            except StaleStep:
                await asyncio.sleep(AGAIN_S)

    async def close(self) -> None:
        """Stop the reference process and disconnect from the topic."""
        await self._close_reference()
        await self._reader.close()

    async def follow(self) -> None:
        """Apply the present state of the topic to every open shard.

        Raises:
            StaleStep: A shard was closed meanwhile or may not publish now; call again.
        """
        self._update_artifact()
        state = self._reader.state
        use, trial = state.use, state.trial
        if trial and (trial.id == (use.id if use else "") or monotonic() - state.trial_received_s > TRIAL_S):
            trial = None
        versions = self._host.versions()
        for closed in self._sent.keys() - versions.keys():
            del self._sent[closed]
        for partition, version in versions.items():
            if version != self.artifact.version:
                await self._switch_shard(partition, use)
            elif trial:
                await self._try_on_shard(partition, trial)
            else:
                await self._cancel(partition)
                await self._calibrate_shard(partition)
                if use:
                    await self._send_status(partition, use.id, "serving")
        if not trial:
            self._trial_artifact = None
            await self._close_reference()

    async def _try_on_shard(self, partition: int, trial: Deployment) -> None:
        sent = self._sent.get(partition)
        if sent and sent.deployment_id == trial.id:
            return
        try:
            if self._trial_artifact is None or self._trial_artifact.version != trial.version:
                self._trial_artifact = self._reader.state.artifact(trial)
            artifact = self._trial_artifact
            if artifact.version != self.artifact.version:
                await self._prepare(partition, artifact)
        except (ModelRefused, ArtifactError) as error:
            await self._cancel(partition)
            await self._send_status(partition, trial.id, "refused", str(error))
        else:
            await self._send_status(partition, trial.id, "ready")

    async def _switch_shard(self, partition: int, use: Deployment | None) -> None:
        deployment_id = use.id if use else ""
        sent = self._sent.get(partition)
        if sent and (sent.deployment_id, sent.state) == (deployment_id, "refused"):
            return
        try:
            replacement = await self._prepare(partition, self.artifact)
            await self._steps.switch(partition, replacement.take_over)
        except ModelRefused as error:
            await self._cancel(partition)
            await self._send_status(partition, deployment_id, "refused", str(error))
            return
        del self._replacements[partition]
        log.info("shard_artifact_switched", extra={"shard": partition, "version": self.artifact.version})
        # Before the announcement, which may fail: at the next poll the shard has its version and is skipped here.
        self._on_switch(partition)
        await self._steps.announce(partition)
        await self._send_status(partition, deployment_id, "serving")

    async def _calibrate_shard(self, partition: int) -> None:
        """Let a shard publish reach by the newest map of its artifact."""
        calibration = self.calibration
        if self._host.calibrations().get(partition, calibration) != calibration:
            await self._steps.run_between_steps(partition, lambda shard: shard.publisher.calibrate(calibration))
            log.info("shard_calibrated", extra={"shard": partition, "posts": calibration.posts})

    async def _prepare(self, partition: int, artifact: Artifact) -> EngineReplacement:
        """Return the computed and checked replacement for a shard.

        Raises:
            ModelRefused: The artifact must not serve.
        """
        begin = monotonic()
        replacement = self._replacements.get(partition)
        if replacement is None or not await self._matches(partition, replacement, artifact):
            await self._cancel(partition)
            replacement = await self._steps.run_between_steps(
                partition, lambda shard: EngineReplacement(shard, artifact, self._make_engine)
            )
            self._replacements[partition] = replacement
            await asyncio.to_thread(replacement.build)
        if replacement.checked:
            return replacement
        built = monotonic()
        while await self._host.run_with_shard(replacement.shard, replacement.compute_block):
            pass
        computed = monotonic()
        for _ in range(SAMPLE):
            sample = await self._sample(partition, replacement)
            if sample is None:
                break
            await asyncio.to_thread(check_user, sample, await self._reference_of(artifact))
        replacement.checked = True
        took = {"built_s": built - begin, "computed_s": computed - built, "checked_s": monotonic() - computed}
        fields = {"shard": partition, "version": artifact.version}
        log.info("artifact_prepared", extra=fields | {name: round(seconds, 3) for name, seconds in took.items()})
        return replacement

    async def _matches(self, partition: int, replacement: EngineReplacement, artifact: Artifact) -> bool:
        """Whether a replacement is for this artifact and for the shard that is open now."""
        same = replacement.artifact.version == artifact.version
        return same and await self._steps.run_between_steps(partition, lambda shard: shard is replacement.shard)

    async def _sample(self, partition: int, replacement: EngineReplacement) -> UserSnapshot | None:
        deadline = monotonic() + UP_TO_DATE_S
        while monotonic() < deadline:
            samples = await self._steps.run_between_steps(
                partition, lambda _: [replacement.sample(self._random)] if replacement.up_to_date else []
            )
            if samples:
                return samples[0]
            await asyncio.sleep(AGAIN_S)
        raise ModelRefused(
            f"shard {partition} was not up to date within {UP_TO_DATE_S:.0f} s: it still reads its log or updates "
            "readers of hubs; try again later"
        )

    async def _reference_of(self, artifact: Artifact) -> ReferenceProcess:
        if self._reference is None or self._reference[0] != artifact.version:
            await self._close_reference()
            self._reference = artifact.version, ReferenceProcess(artifact)
        return self._reference[1]

    async def _close_reference(self) -> None:
        if self._reference is not None:
            process, self._reference = self._reference[1], None
            await asyncio.to_thread(process.close)

    async def _cancel(self, partition: int) -> None:
        replacement = self._replacements.pop(partition, None)
        if replacement is not None:
            with suppress(StaleStep):  # the shard was closed, and the new engine with it
                await self._host.run_with_shard(replacement.shard, replacement.cancel)

    async def _send_status(self, partition: int, deployment_id: str, state: RolloutState, error: str = "") -> None:
        version = self._host.versions().get(partition)
        if version is None:
            return
        status = ShardStatus(partition, deployment_id, state, version, self._worker, error)
        if self._sent.get(partition) == status:
            return
        if error:
            fields = {"shard": partition, "deployment": deployment_id, "error": error}
            log.warning("artifact_refused", extra=fields)
        await self._send(ModelsTopicMessage(f"{SHARD}/{partition}", encode(status)))
        self._sent[partition] = status
