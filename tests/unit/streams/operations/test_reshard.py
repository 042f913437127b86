"""What needs no broker of `state reshard`: which artifact the new states are built with."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

import streams.operations.reshard
from model.artifact import Artifact, untrained
from model.config import ModelConfig
from streams.operations.reshard import Resharding
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


class Opened(Exception):
    """Ends the building at the first state."""


class Moving(Resharding):
    """A move whose topics are not there."""

    def alone(self) -> None:
        """Nobody else is."""

    def _old_ends(self, old: int) -> list[int]:
        return [0] * old

    def _delete(self, names: list[str]) -> None:
        del names

    def _make(self, specs: list[Any]) -> None:
        del specs

    def _note(self, journal: Any) -> None:
        del journal


def put_to_use(artifact: Artifact) -> ModelsTopicState:
    """What the models topic says then."""
    notices = ModelsTopicState()
    order, parts = new_deployment(artifact, "x")
    for message in (*parts, ModelsTopicMessage(USE, encode(order))):
        notices.apply(message)
    return notices


def test_states_are_built_with_the_artifact_in_use(offline_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `model use` said last counts, the graph that it reads too; what the settings say is not asked."""

    def opened(_folder: Any, artifact: Artifact, spec: Any, **_named: Any) -> None:
        raise Opened(artifact.version, spec.window, spec.shards)

    monkeypatch.setattr(streams.reshard, "read_models_topic", lambda _settings: put_to_use(NEW))
    monkeypatch.setattr(streams.reshard, "writer", lambda *_: nullcontext())
    monkeypatch.setattr(streams.reshard, "Shard", SimpleNamespace(open=opened))
    client: Any = None
    offline_settings.datadir.mkdir()
    with pytest.raises(Opened) as caught:
        Moving(offline_settings, client, 2, lambda *_: None)._build(1)
    assert caught.value.args == (NEW.version, 3, 2)


def test_without_a_word_the_settings_count(offline_settings: Settings) -> None:
    """Where nothing was put to use, or there is no topic, it is the artifact of the settings."""
    for nothing in (None, ModelsTopicState()):
        assert artifact_in_use(offline_settings, nothing).version == Artifact.default().version
    assert artifact_in_use(offline_settings, put_to_use(NEW)).version == NEW.version
