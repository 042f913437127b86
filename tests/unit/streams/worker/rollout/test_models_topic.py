"""The models topic: what it says is a function of its messages; an artifact that is not whole is none."""

from __future__ import annotations

import pytest

import streams.worker.rollout.models_topic
from model.artifact import untrained
from model.config import ModelConfig
from model.errors import ArtifactError
from streams.errors import StateError
from streams.worker.rollout.models_topic import SHARD, TRY, USE, Answer, Message, Notices, encode, order_of

ARTIFACT = untrained(ModelConfig(hidden=8, heads=2, head_hidden=8), 1)
OTHER = untrained(ModelConfig(hidden=8, heads=2, head_hidden=8), 2)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.worker.rollout.models_topic, "PART_BYTES", 4_000)


def test_an_artifact_comes_back_from_its_parts() -> None:
    """In any order of parts, with those of another among them; with one that differs, or without any, it does not."""
    order, parts = order_of(ARTIFACT, "x")
    other, more = order_of(OTHER, "y")
    assert len(parts) == order.parts > 2
    notices = Notices()
    for message in (*reversed(parts), *more):
        notices.take(message)
    found = notices.artifact(order)
    assert (found.version, found.card, found.config) == (ARTIFACT.version, ARTIFACT.card, ARTIFACT.config)
    assert notices.artifact(other).version == OTHER.version
    notices.take(Message(parts[1].key, b"x" + (parts[1].value or b"")[1:]))
    with pytest.raises(ArtifactError, match="not whole: give `groundswell model use DIR` again"):
        notices.artifact(order)
    notices.take(parts[1])
    assert notices.artifact(order).version == ARTIFACT.version
    for message in notices.outdated({OTHER.version}):
        notices.take(message)
    with pytest.raises(ArtifactError, match="not whole"):
        notices.artifact(order)
    assert list(notices.outdated({OTHER.version})) == []


def test_the_last_word_counts() -> None:
    """Orders and answers are replaced; a message without a value takes an order back."""
    notices, now = Notices(lambda: 7.0), 5
    order, _ = order_of(ARTIFACT, "x")
    notices.take(Message(TRY, encode(order), now))
    assert (notices.trial, notices.tried_ms, notices.heard_s, notices.use) == (order, now, 7.0, None)
    for state in ("ready", "serving"):
        notices.take(Message(f"{SHARD}/3", encode(Answer(3, "x", state, order.version, "w0"))))  # type: ignore[arg-type]
    assert notices.answers == {3: Answer(3, "x", "serving", order.version, "w0")}
    notices.take(Message(USE, encode(order)))
    notices.take(Message(TRY, None))
    assert (notices.use, notices.trial) == (order, None)
    notices.take(Message(USE, None))
    assert notices.use is None


@pytest.mark.parametrize(
    "message",
    [
        Message(USE, b"{"),
        Message("part/x", b"1"),
        Message("part/x/y", b"1"),
        Message("shard/1", b'{"shard":1}'),
        Message("", b"x"),
    ],
)
def test_what_is_none_of_ours_is_an_error(message: Message) -> None:
    """Somebody else writes to the topic: one line says so."""
    with pytest.raises(StateError, match="nothing but Groundswell may write to it"):
        Notices().take(message)
