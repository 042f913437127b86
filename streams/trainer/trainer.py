"""The trainer's process: follows the log, runs a cycle when one is due, and carries out what it decides.

    models topic: what is in use, live figures, decisions ──► due? ──► cycle ──► row, line ──► activation

All that it remembers is on the models topic, so it may end at any point: a decision is written before it is carried
out, and until then the artifact that was in use stays.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from model.artifact import Artifact
from model.evaluation import live_figures
from model.evaluation.gate import GateLimits
from streams.errors import ModelRefused
from streams.kafka import topics
from streams.kafka.access import rights, rights_table
from streams.messages.closed_posts import decode
from streams.operations.model_activation import ModelActivation
from streams.settings.settings import Settings
from streams.trainer.cycle import CyclePlan, Decision, run_cycle
from streams.trainer.history import HistoryRow, in_use, rows, tombstones
from streams.trainer.training_log import TrainingLog
from streams.worker.rollout.models_topic import (
    POLL_S,
    ModelsTopicMessage,
    ModelsTopicState,
    ModelsTopicWriter,
    map_key,
    models_topic_writer,
)

log = logging.getLogger(__name__)

EVERY_S = 10.0
"""Interval at which the log is read."""
EARLY = 8
"""A training because of the live figure comes no sooner than after this part of `TRAIN_EVERY_S`."""
ACTIVATE_S = 300.0

Progress = Callable[[str], None]


def limit_process(settings: Settings) -> None:
    """Lower the priority of this process, and limit its threads and memory."""
    os.nice(settings.train_nice)
    if settings.train_memory_mb:
        size = settings.train_memory_mb << 20
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    import torch

    torch.set_num_threads(settings.train_threads)


def cycle_plan(settings: Settings) -> CyclePlan:
    """Return the sizes of a cycle; the gate needs 200 posts, or half of those that judge if these are fewer."""
    limits = GateLimits(posts=min(GateLimits.posts, settings.train_posts // 2))
    return CyclePlan(judging=settings.train_posts, threads=settings.train_threads, limits=limits)


def due(settings: Settings, state: ModelsTopicState, clock_us: int) -> bool:
    """Return whether a cycle is due at an event time (µs): enough time has passed, or the live figure is behind."""
    if clock_us <= 0:
        return False
    decided = rows(state)
    if not decided:
        return True
    passed_s = (clock_us - decided[-1].as_of) / 1e6
    return passed_s >= settings.train_every_s or (
        passed_s >= settings.train_every_s / EARLY and behind(settings, state) > settings.train_behind
    )


def behind(settings: Settings, state: ModelsTopicState) -> float:
    """Return by how much the live Spearman of the artifact that predicted last is below that of the past mean."""
    parts = [decode(value) for shard, value in state.posts.items() if shard < settings.shards]
    posts = live_figures.newest(parts, settings.live_posts)
    spearman = live_figures.figures(posts[posts["model"] == posts["model"][-1:].sum()])["spearman"]
    ours, past = (spearman[name]["all"] for name in (live_figures.MODEL, live_figures.PAST_MEAN))
    return 0.0 if ours is None or past is None else float(past - ours)


class Trainer:
    """Follows the log and decides.

    Args:
        settings: The settings.
        topic: Reads and writes the models topic.
        progress: Receives one line per stage of a cycle.
        on_row: Receives each decision.

    Attributes:
        plan: Sizes of a cycle.
    """

    def __init__(
        self,
        settings: Settings,
        topic: ModelsTopicWriter,
        progress: Progress = lambda _line: None,
        on_row: Callable[[HistoryRow], None] = lambda _row: None,
    ) -> None:
        self._settings, self._topic, self._progress, self._on_row = settings, topic, progress, on_row
        self._log = TrainingLog(settings)
        self.plan = cycle_plan(settings)

    async def step(self, *, always: bool = False) -> HistoryRow | None:
        """Read the log, and run a cycle if one is due.

        Args:
            always: Run one in any case.

        Returns:
            The decision; None if no cycle was due.
        """
        await asyncio.to_thread(self._log.read, self._progress)
        await self._topic.read(POLL_S)
        state, clock = self._topic.state, self._log.clock
        if not always and not due(self._settings, state, clock):
            return None
        begin, used = time.monotonic(), in_use(self._settings, state)
        seed = len(rows(state))
        decision = await asyncio.to_thread(run_cycle, self._log.events, used, self.plan, seed, self._progress)
        return await self._carry_out(decision, used.artifact, time.monotonic() - begin)

    async def _carry_out(self, decision: Decision, current: Artifact, seconds: float) -> HistoryRow:
        """Write the decision, then carry it out; a refusal by the workers is a decision of its own."""
        row = self._row(decision, current, seconds)
        if decision.artifact is not None and decision.calibration is not None and self._settings.calibrate:
            key = map_key(decision.artifact.version)
            await self._topic.write(ModelsTopicMessage(key, decision.calibration.pack()))
        await self._write(row)
        if decision.artifact is None:
            return row
        try:
            await self._activate(decision.artifact)
        except ModelRefused as error:
            row = msgspec.structs.replace(row, id=_new_id(), action="refused", reasons=[str(error)])
            await self._write(row)
        return row

    def _row(self, decision: Decision, current: Artifact, seconds: float) -> HistoryRow:
        return HistoryRow(
            id=_new_id(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            as_of=decision.as_of,
            action=decision.action,
            in_use=current.version,
            candidate=decision.candidate,
            reasons=decision.reasons,
            figures=decision.figures(),
            before=self._topic.state.use,
            events=len(self._log.events),
            seconds=round(seconds, 1),
        )

    async def _write(self, row: HistoryRow) -> None:
        await self._topic.write(row.message(), *tombstones(self._topic.state))
        await self._topic.read(POLL_S)
        fields = {"action": row.action, "candidate": row.candidate, "in_use": row.in_use, "reasons": row.reasons}
        log.info("trainer_decided", extra=fields)
        self._on_row(row)

    async def _activate(self, artifact: Artifact) -> None:
        with topics.admin(self._settings) as client:
            group = self._settings.consumer_group
            described = topics.with_coordinator(lambda: client.describe_groups([group]))
            members = described[group]["members"]
        activation = ModelActivation(self._topic, self._settings.shards, live=bool(members), timeout_s=ACTIVATE_S)
        await activation.activate(artifact)


async def run(settings: Settings, *, once: bool, progress: Progress, on_row: Callable[[HistoryRow], None]) -> None:
    """Run a trainer until it is cancelled, or for one cycle.

    Raises:
        GroundswellError: What stopped it.
    """
    with topics.admin(settings) as client:
        registry = topics.Topics(settings)
        rights.require(client, rights_table.trainer(settings))
        topics.check(client, [registry.mutations])
        topics.make(client, [registry.models])
    async with models_topic_writer(settings) as topic:
        trainer = Trainer(settings, topic, progress, on_row)
        while True:
            await trainer.step(always=once)
            if once:
                return
            await asyncio.sleep(EVERY_S)


def _new_id() -> str:
    return f"{time.time_ns() // 1_000_000:015d}"
