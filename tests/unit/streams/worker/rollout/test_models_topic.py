"""The models topic: its state follows from its messages, and an incomplete artifact is refused."""

from __future__ import annotations

import msgspec
import pytest

from model.artifact import untrained
from model.config import ModelConfig
from model.errors import ArtifactError
from streams.errors import StateError
from streams.worker.rollout import models_topic
from streams.worker.rollout.models_topic import (
    SHARD,
    TRY,
    USE,
    ModelsTopicMessage,
    ModelsTopicState,
    ShardStatus,
    encode,
    new_deployment,
)

ARTIFACT = untrained(ModelConfig(hidden=8, heads=2, head_hidden=8), 1)
OTHER = untrained(ModelConfig(hidden=8, heads=2, head_hidden=8), 2)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_topic, "PART_BYTES", 4_000)


def test_an_artifact_is_assembled_from_its_parts() -> None:
    """The order of the parts and the parts of other artifacts do not matter; a changed or missing part does."""
    deployment, parts = new_deployment(ARTIFACT, "x")
    other, other_parts = new_deployment(OTHER, "y")
    assert len(parts) == deployment.parts > 2
    state = ModelsTopicState()
    for message in (*reversed(parts), *other_parts):
        state.apply(message)
    artifact = state.artifact(deployment)
    assert (artifact.version, artifact.card, artifact.config) == (ARTIFACT.version, ARTIFACT.card, ARTIFACT.config)
    assert state.artifact(other).version == OTHER.version
    state.apply(ModelsTopicMessage(parts[1].key, b"x" + (parts[1].value or b"")[1:]))
    with pytest.raises(ArtifactError, match="not whole: give `groundswell model use DIR` again"):
        state.artifact(deployment)
    state.apply(parts[1])
    assert state.artifact(deployment).version == ARTIFACT.version
    for message in state.tombstones({OTHER.version}):
        state.apply(message)
    with pytest.raises(ArtifactError, match="not whole"):
        state.artifact(deployment)
    assert list(state.tombstones({OTHER.version})) == []


def test_the_newest_message_of_a_key_counts() -> None:
    """Deployments and statuses are replaced; a message without a value removes a deployment."""
    state, now = ModelsTopicState(lambda: 7.0), 5
    deployment, _ = new_deployment(ARTIFACT, "x")
    state.apply(ModelsTopicMessage(TRY, encode(deployment), now))
    assert (state.trial, state.trial_time_ms, state.trial_received_s, state.use) == (deployment, now, 7.0, None)
    for rollout_state in ("ready", "serving"):
        status = ShardStatus(3, "x", rollout_state, deployment.version, "w0")  # type: ignore[arg-type]
        state.apply(ModelsTopicMessage(f"{SHARD}/3", encode(status)))
    assert state.shards == {3: ShardStatus(3, "x", "serving", deployment.version, "w0")}
    state.apply(ModelsTopicMessage(USE, encode(deployment)))
    state.apply(ModelsTopicMessage(TRY, None))
    assert (state.use, state.trial) == (deployment, None)
    state.apply(ModelsTopicMessage(USE, None))
    assert state.use is None


def test_the_fields_of_a_status_on_the_wire() -> None:
    """Workers of other releases read these names."""
    status = ShardStatus(3, "x", "ready", "v", "w0")
    wire = {"shard": 3, "order": "x", "state": "ready", "version": "v", "worker": "w0", "error": ""}
    assert msgspec.json.decode(encode(status)) == wire


@pytest.mark.parametrize(
    "message",
    [
        ModelsTopicMessage(USE, b"{"),
        ModelsTopicMessage("part/x", b"1"),
        ModelsTopicMessage("part/x/y", b"1"),
        ModelsTopicMessage("shard/1", b'{"shard":1}'),
        ModelsTopicMessage("", b"x"),
    ],
)
def test_a_foreign_message_is_an_error(message: ModelsTopicMessage) -> None:
    """A message of another program is reported in one line."""
    with pytest.raises(StateError, match="nothing but Groundswell may write to it"):
        ModelsTopicState().apply(message)
