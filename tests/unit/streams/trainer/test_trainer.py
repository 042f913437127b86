"""The trainer: when a cycle is due, and what is in use after a decision, a refusal by the workers, or a crash."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from graphstate.types import Kind, Mutation
from model.artifact import Artifact, untrained
from model.config import ModelConfig
from model.evaluation.calibration import CalibrationMap
from model.evaluation.live_figures import POST
from streams.errors import ModelRefused
from streams.messages.closed_posts import encode
from streams.settings.settings import Settings
from streams.trainer import trainer as module
from streams.trainer.cycle import Decision, InUse
from streams.trainer.history import HistoryRow, in_use, rows
from streams.trainer.trainer import Trainer, due
from streams.worker.rollout.models_topic import USE, ModelsTopicMessage, ModelsTopicState, new_deployment
from streams.worker.rollout.models_topic import encode as encode_deployment

BETTER = untrained(ModelConfig(), 1)
SECOND = 1_000_000
DAY = 86_400 * SECOND


class Topic:
    """The models topic in memory."""

    def __init__(self) -> None:
        self.state = ModelsTopicState()

    async def read(self, _timeout_s: float) -> bool:
        """Do nothing: messages are applied as they are written."""
        return False

    async def write(self, *messages: ModelsTopicMessage) -> None:
        """Apply messages."""
        for message in messages:
            self.state.apply(message)

    async def use(self, artifact: Artifact) -> None:
        """Put an artifact to use."""
        deployment, parts = new_deployment(artifact, "x")
        await self.write(*parts, ModelsTopicMessage(USE, encode_deployment(deployment)))


def trainer(settings: Settings, topic: Topic, events: list[Mutation]) -> Trainer:
    """Return a trainer with a log in memory."""
    made = Trainer(settings, cast("Any", topic))
    clock = max((event.time for event in events), default=0)
    made._log = cast("Any", SimpleNamespace(read=lambda _progress: len(events), events=events, clock=clock))
    return made


EVENTS = [Mutation(Kind.CREATE, 5 * DAY, "u", "c")]
MAP = CalibrationMap(0.5, 1.0, 1.0, 400, 0.0, 1.0)


def decide(monkeypatch: pytest.MonkeyPatch, decision: Decision) -> list[InUse]:
    """Let every cycle end with a decision; return what the cycles found in use."""
    seen: list[InUse] = []

    def run_cycle(_events: Any, used: InUse, *_: Any) -> Decision:
        seen.append(used)
        return decision

    monkeypatch.setattr(module, "run_cycle", run_cycle)
    return seen


def test_a_decision_is_carried_out(monkeypatch: pytest.MonkeyPatch, offline_settings: Settings) -> None:
    """An accepted artifact is in use with its map, its row names what it replaced; the next cycle is a day later."""
    topic, told = Topic(), list[HistoryRow]()
    made = trainer(offline_settings, topic, EVENTS)
    made._on_row = told.append
    monkeypatch.setattr(Trainer, "_activate", lambda _self, artifact: topic.use(artifact))
    seen = decide(monkeypatch, Decision("accepted", 5 * DAY, BETTER, MAP, BETTER.version))
    row = asyncio.run(made.step())
    assert row is not None
    assert told == rows(topic.state) == [row]
    assert (row.action, row.candidate, row.in_use) == ("accepted", BETTER.version, Artifact.default().version)
    assert topic.state.calibrations == {BETTER.version: MAP}
    assert asyncio.run(made.step()) is None
    assert asyncio.run(made.step(always=True)) is not None
    assert [used.artifact.version for used in seen] == [Artifact.default().version, BETTER.version]
    assert seen[1].before is not None


@pytest.mark.parametrize("crash", [True, False])
def test_what_is_not_carried_out(monkeypatch: pytest.MonkeyPatch, offline_settings: Settings, *, crash: bool) -> None:
    """After a crash before the activation, or a refusal by a shard, the old artifact is in use; the trainer goes on."""
    topic = Topic()
    made = trainer(offline_settings, topic, EVENTS)

    async def fail(_self: Trainer, _artifact: Artifact) -> None:
        raise KeyboardInterrupt if crash else ModelRefused("shard 1 refused")

    monkeypatch.setattr(Trainer, "_activate", fail)
    decide(monkeypatch, Decision("accepted", 5 * DAY, BETTER, None, BETTER.version))
    if crash:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(made.step())
    else:
        row = asyncio.run(made.step())
        assert row is not None
        assert (row.action, row.reasons) == ("refused", ["shard 1 refused"])
    found = in_use(offline_settings, topic.state)
    assert (found.artifact.version, found.before) == (Artifact.default().version, None)
    assert due(offline_settings, topic.state, 6 * DAY)


def test_when_a_cycle_is_due(offline_settings: Settings) -> None:
    """At first, after TRAIN_EVERY_S, or after an eighth of it while the live figure is behind the past mean."""
    state, settings = ModelsTopicState(), offline_settings
    assert not due(settings, state, 0)
    assert due(settings, state, DAY)
    row = HistoryRow(id="1", at="", as_of=10 * DAY, action="refused", in_use="")
    state.apply(row.message())
    assert not due(settings, state, 10 * DAY + DAY // 2)
    assert due(settings, state, 11 * DAY)
    posts = np.zeros(200, POST)
    posts["content"], posts["posts"] = np.arange(200), 4
    posts["reach"] = posts["log_reach"] = np.arange(200)
    posts["score"] = -np.arange(200)
    state.apply(ModelsTopicMessage("posts/0", encode(posts)))
    assert due(settings, state, 10 * DAY + DAY // 2)
    assert not due(settings, state, 10 * DAY + DAY // 9)
