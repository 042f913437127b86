"""`state reshard` without a broker: which artifact the new states are built with."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from model.artifact import Artifact, untrained
from model.config import ModelConfig
from streams.operations import reshard
from streams.operations.reshard import Resharding
from streams.operations.reshard_journal import Journal, ReshardTopics
from streams.settings.settings import Settings
from streams.worker.rollout.models_topic import (
    USE,
    ModelsTopicMessage,
    ModelsTopicState,
    artifact_in_use,
    encode,
    new_deployment,
)

NEW = untrained(ModelConfig(hidden=8, heads=2, head_hidden=8, window=3), 1)


class StateOpened(Exception):
    """Ends the build when the first state is opened."""


class EmptyTopics(ReshardTopics):
    """Topics without records; nothing is created or deleted."""

    def complete_log_ends(self) -> list[int]:
        """Return the ends of one empty partition."""
        return [0]

    def delete(self, names: list[str]) -> None:
        """Do nothing."""

    def create(self, specs: list[Any]) -> None:
        """Do nothing."""

    def append_journal(self, journal: Journal) -> None:
        """Do nothing."""


def put_to_use(artifact: Artifact) -> ModelsTopicState:
    """Return the state of a models topic on which an artifact is in use."""
    notices = ModelsTopicState()
    order, parts = new_deployment(artifact, "x")
    for message in (*parts, ModelsTopicMessage(USE, encode(order))):
        notices.apply(message)
    return notices


def test_states_are_built_with_the_artifact_in_use(offline_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The artifact of `model use` decides the graph that is built, also against the settings."""

    def opened(_folder: Any, artifact: Artifact, spec: Any, **_named: Any) -> None:
        raise StateOpened(artifact.version, spec.window, spec.shards)

    monkeypatch.setattr(reshard, "read_models_topic", lambda _settings: put_to_use(NEW))
    monkeypatch.setattr(reshard, "writer", lambda *_: nullcontext())
    monkeypatch.setattr(reshard, "Shard", SimpleNamespace(open=opened))
    monkeypatch.setattr(reshard, "ReshardTopics", EmptyTopics)
    monkeypatch.setattr(Resharding, "wait_for_empty_group", lambda _self: None)
    client: Any = None
    offline_settings.datadir.mkdir()
    with pytest.raises(StateOpened) as caught:
        Resharding(offline_settings, client, 2, lambda *_: None)._build(1)
    assert caught.value.args == (NEW.version, 3, 2)


def test_without_an_order_the_settings_decide(offline_settings: Settings) -> None:
    """Without a models topic, or with an empty one, the artifact of the settings is in use."""
    for nothing in (None, ModelsTopicState()):
        assert artifact_in_use(offline_settings, nothing).version == Artifact.default().version
    assert artifact_in_use(offline_settings, put_to_use(NEW)).version == NEW.version
