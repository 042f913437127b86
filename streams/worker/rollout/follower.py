"""A worker's side of `groundswell model use`: what the models topic says is in use is what its shards serve.

    an order to try     each shard's engine is made ready beside the one that serves, and checked, and the shard says
                        how that went
    an order to use     each shard goes over between two micro-batches, says hello under the new version, and says so

A shard that was opened later, or by a worker that starts, is opened with what is in use.
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
from streams.errors import ModelRefused, StaleStep
from streams.kafka.access.rights import refused
from streams.shard.shard import Shard
from streams.worker.inspection.reference_process import ReferenceProcess
from streams.worker.inspection.user_audit import UserSnapshot
from streams.worker.processing.shard_host import ShardHost
from streams.worker.rollout.engine_replacement import Successor, judged
from streams.worker.rollout.models_topic import SHARD, TRIAL_S, Answer, Board, Message, Order, State, encode

log = logging.getLogger(__name__)
T = TypeVar("T")

BEAT_S = 1.0
SETTLE_S = 60.0
"""How long a shard may take to have nobody waiting in it, before it says that it is busy."""
AGAIN_S = 0.1
SAMPLE = 12
"""Users of each shard that the reference judges."""


class Turns(Protocol):
    """What of `streams.worker.processing.shard_agent.ShardWork` is used here."""

    async def between(self, partition: int, work: Callable[[Shard], T]) -> T:
        """What some work says of a shard between two micro-batches."""
        ...

    async def switch(self, partition: int, take_over: Callable[[Shard], None]) -> None:
        """Let a shard go over to another artifact."""
        ...

    async def greet(self, partition: int) -> None:
        """Let a shard say hello, if it has not."""
        ...


class Switching:
    """Follows the models topic for all open shards of a worker, until it is cancelled.

    Args:
        board: the topic.
        host, turns: the open shards, and their turns between two micro-batches.
        make: makes their engines.
        configured: what is served while nothing was ever put to use.
        worker: this one's name, for people.
        say: sends a message to the topic under the worker's lease.
        switched: told which shard went over to another artifact.
    """

    def __init__(
        self,
        board: Board,
        host: ShardHost,
        turns: Turns,
        make: MakeBackend,
        configured: Artifact,
        worker: str,
        say: Callable[[Message], Awaitable[None]],
        switched: Callable[[int], None],
    ) -> None:
        self.artifact = self._configured = configured
        self._board, self._host, self._turns, self._make = board, host, turns, make
        self._worker, self._say, self._switched = worker, say, switched
        self._successors: dict[int, Successor] = {}
        self._said: dict[int, Answer] = {}
        self._trial: Artifact | None = None
        self._judge: tuple[str, ReferenceProcess] | None = None
        self._random = Random()

    async def open(self) -> None:
        """Learn what is in use.

        Raises:
            BrokerError: Kafka cannot be reached.
            ArtifactError: what is in use is not whole on the topic.
        """
        await self._board.open()
        self._follow_use()

    def _follow_use(self) -> None:
        use = self._board.notices.use
        version = use.version if use else self._configured.version
        if version != self.artifact.version:
            self.artifact = self._board.notices.artifact(use) if use else self._configured
            log.info("another artifact is in use", extra={"version": version})

    async def run(self) -> None:
        """Follow the topic; raises what stops the worker."""
        while True:
            try:
                await self._board.read(BEAT_S)
                await self.follow()
            except KafkaError as error:
                if refused(error):
                    raise
                # aiokafka says so in the log, and goes on by itself once Kafka is back.
                await asyncio.sleep(BEAT_S)
            except StaleStep:
                await asyncio.sleep(AGAIN_S)

    async def close(self) -> None:
        """Follow no more."""
        await self._dismiss()
        await self._board.close()

    async def follow(self) -> None:
        """Do what the topic says now, for each open shard.

        Raises:
            StaleStep: a shard was closed meanwhile, or may not speak now; once more will do.
        """
        self._follow_use()
        notices = self._board.notices
        use, trial = notices.use, notices.trial
        if trial and (trial.id == (use.id if use else "") or monotonic() - notices.heard_s > TRIAL_S):
            trial = None
        versions = self._host.versions()
        for gone in self._said.keys() - versions.keys():
            del self._said[gone]
        for partition, version in versions.items():
            if version != self.artifact.version:
                await self._go_over(partition, use)
            elif trial:
                await self._try(partition, trial)
            else:
                await self._give_up(partition)
                if use:
                    await self._answer(partition, use.id, "serving")
        if not trial:
            self._trial = None
            await self._dismiss()

    async def _try(self, partition: int, trial: Order) -> None:
        said = self._said.get(partition)
        if said and said.order == trial.id:
            return
        try:
            if self._trial is None or self._trial.version != trial.version:
                self._trial = self._board.notices.artifact(trial)
            artifact = self._trial
            if artifact.version != self.artifact.version:
                await self._prepare(partition, artifact)
        except (ModelRefused, ArtifactError) as error:
            await self._give_up(partition)
            await self._answer(partition, trial.id, "refused", str(error))
        else:
            await self._answer(partition, trial.id, "ready")

    async def _go_over(self, partition: int, use: Order | None) -> None:
        order = use.id if use else ""
        said = self._said.get(partition)
        if said and (said.order, said.state) == (order, "refused"):
            return
        try:
            successor = await self._prepare(partition, self.artifact)
            await self._turns.switch(partition, successor.take_over)
        except ModelRefused as error:
            await self._give_up(partition)
            await self._answer(partition, order, "refused", str(error))
            return
        del self._successors[partition]
        log.info("a shard serves another artifact", extra={"shard": partition, "version": self.artifact.version})
        # Before the hello, which may be refused: at the next beat the shard has its version, and nobody would say so.
        self._switched(partition)
        await self._turns.greet(partition)
        await self._answer(partition, order, "serving")

    async def _prepare(self, partition: int, artifact: Artifact) -> Successor:
        """The successor in a shard, computed and checked.

        Raises:
            ModelRefused: it must not serve.
        """
        begin = monotonic()
        successor = self._successors.get(partition)
        if successor is None or not await self._fits(partition, successor, artifact):
            await self._give_up(partition)
            successor = await self._turns.between(partition, lambda shard: Successor(shard, artifact, self._make))
            self._successors[partition] = successor
            await asyncio.to_thread(successor.make)
        if successor.checked:
            return successor
        made = monotonic()
        while await self._host.beside(successor.shard, successor.piece):
            pass
        computed = monotonic()
        for _ in range(SAMPLE):
            seen = await self._sample(partition, successor)
            if seen is None:
                break
            await asyncio.to_thread(judged, seen, await self._judge_of(artifact))
        successor.checked = True
        took = {"made_s": made - begin, "computed_s": computed - made, "checked_s": monotonic() - computed}
        about = {"shard": partition, "version": artifact.version}
        log.info("an artifact is ready", extra=about | {name: round(seconds, 3) for name, seconds in took.items()})
        return successor

    async def _fits(self, partition: int, successor: Successor, artifact: Artifact) -> bool:
        """Whether a successor is for this artifact and in the shard that is open now."""
        same = successor.artifact.version == artifact.version
        return same and await self._turns.between(partition, lambda shard: shard is successor.shard)

    async def _sample(self, partition: int, successor: Successor) -> UserSnapshot | None:
        deadline = monotonic() + SETTLE_S
        while monotonic() < deadline:
            seen = await self._turns.between(
                partition, lambda _: [successor.sample(self._random)] if successor.settled else []
            )
            if seen:
                return seen[0]
            await asyncio.sleep(AGAIN_S)
        raise ModelRefused(
            f"shard {partition} did not come to rest in {SETTLE_S:.0f} s: it catches up with its log or with "
            "readers of hubs; try again later"
        )

    async def _judge_of(self, artifact: Artifact) -> ReferenceProcess:
        if self._judge is None or self._judge[0] != artifact.version:
            await self._dismiss()
            self._judge = artifact.version, ReferenceProcess(artifact)
        return self._judge[1]

    async def _dismiss(self) -> None:
        if self._judge is not None:
            judge, self._judge = self._judge[1], None
            await asyncio.to_thread(judge.close)

    async def _give_up(self, partition: int) -> None:
        successor = self._successors.pop(partition, None)
        if successor is not None:
            with suppress(StaleStep):  # it went with its shard
                await self._host.beside(successor.shard, successor.give_up)

    async def _answer(self, partition: int, order: str, state: State, error: str = "") -> None:
        version = self._host.versions().get(partition)
        if version is None:
            return
        answer = Answer(partition, order, state, version, self._worker, error)
        if self._said.get(partition) == answer:
            return
        if error:
            log.warning("an artifact was refused", extra={"shard": partition, "order": order, "because": error})
        await self._say(Message(f"{SHARD}/{partition}", encode(answer)))
        self._said[partition] = answer
