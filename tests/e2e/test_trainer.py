"""The trainer on a real broker: it reads the log, puts a better artifact to use, and lists what it decided."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from model.artifact import untrained
from model.config import ModelConfig
from model.simulation.stream import Simulation
from streams.kafka.topics import Topics, admin, create
from streams.messages.events import TOPIC_OF
from streams.settings.settings import Settings
from streams.trainer.history import HistoryRow
from streams.trainer.trainer import Trainer
from streams.trainer.training_log import TrainingLog
from streams.worker.rollout.models_topic import artifact_in_use, models_topic_writer, read_models_topic
from tests.support.workers import producer


def test_a_better_artifact_is_put_to_use(settings: Settings, tmp_path: Path) -> None:
    """In place of one that ranks at random comes one that was trained on the topics; the log is followed."""
    poor = untrained(ModelConfig(), 3)
    poor.save(tmp_path / "poor")
    own = settings.model_copy(update={"model": str(tmp_path / "poor"), "train_posts": 300, "partitions": 2})
    rows = list(Simulation(150, 2, 5, posts_per_day=0.6).events(16))
    with admin(own) as client:
        create(client, Topics(own).all())
    log, inputs = TrainingLog(own), Topics(own).inputs
    with producer(own) as sender:
        for row in rows[:-100]:
            event = {name: value for name, value in row.items() if value is not None}
            sender.send(inputs[TOPIC_OF[event["type"]]].name, json.dumps(event).encode())
        sender.flush()
        assert log.read() == len(rows) - 100
        for row in rows[-100:]:
            event = {name: value for name, value in row.items() if value is not None}
            sender.send(inputs[TOPIC_OF[event["type"]]].name, json.dumps(event).encode())
        sender.flush()
    assert log.read() == 100
    assert log.clock == max(event.time for event in log.events)
    told: list[HistoryRow] = []

    async def cycle() -> None:
        async with models_topic_writer(own) as topic:
            made = Trainer(own, topic, on_row=told.append)
            made.plan = replace(made.plan, snapshots=4, epochs=3)
            assert await made.step() is not None
            assert await made.step() is None

    asyncio.run(cycle())
    state = read_models_topic(own)
    assert state is not None
    assert [row.action for row in told] == ["accepted"], told[0].reasons
    assert artifact_in_use(own, state).version == told[0].candidate != poor.version
    assert list(state.history) == [told[0].id]
