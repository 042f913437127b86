"""Decisions on the models topic: bounded, in order, and what is in use follows from them after any crash."""

from __future__ import annotations

import pytest

from model.artifact import Artifact, untrained
from model.config import ModelConfig
from streams.errors import StateError
from streams.settings.settings import Settings
from streams.trainer import history
from streams.trainer.history import HistoryRow, in_use, rows, tombstones
from streams.worker.rollout.models_topic import USE, ModelsTopicMessage, ModelsTopicState, encode, new_deployment

FIRST, SECOND = (untrained(ModelConfig(), seed) for seed in (1, 2))


def row(number: int, action: str, candidate: str = "", **fields: object) -> HistoryRow:
    """Return a decision."""
    given = {"at": "2026-01-01", "as_of": number * 1_000, "in_use": "0" * 12, **fields}
    return HistoryRow(id=f"{number:015d}", action=action, candidate=candidate, **given)  # type: ignore[arg-type]


def topic(*messages: ModelsTopicMessage) -> ModelsTopicState:
    """Return the state after some messages."""
    state = ModelsTopicState()
    for message in messages:
        state.apply(message)
    return state


def test_rows_are_in_order_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come back oldest first; the oldest beyond the limit are deleted; foreign bytes are refused."""
    monkeypatch.setattr(history, "ROWS", 2)
    state = topic(*(row(number, "refused", reasons=["no"]).message() for number in (3, 1, 2)))
    assert [one.as_of for one in rows(state)] == [1_000, 2_000, 3_000]
    for message in list(tombstones(state)):
        state.apply(message)
    assert [one.as_of for one in rows(state)] == [2_000, 3_000]
    with pytest.raises(StateError, match="upgrade this program"):
        rows(topic(ModelsTopicMessage("history/1", b"{}")))


def test_what_is_in_use(offline_settings: Settings) -> None:
    """There is a step back only after a decision that was carried out, and only while the files are there."""
    settings, packaged = offline_settings, Artifact.default()
    first, first_parts = new_deployment(FIRST, "a")
    second, second_parts = new_deployment(SECOND, "b")
    assert in_use(settings, topic()).artifact.version == packaged.version
    by_operator = in_use(settings, topic(*first_parts, ModelsTopicMessage(USE, encode(first))))
    assert by_operator.start is by_operator.artifact
    began = [*first_parts, ModelsTopicMessage(USE, encode(first))]
    accepted = row(1, "accepted", FIRST.version)
    found = in_use(settings, topic(*began, accepted.message()))
    assert (found.artifact.version, found.since) == (FIRST.version, 1_000)
    assert found.start is not None
    assert found.start.version == packaged.version
    assert found.before is not None
    assert found.before.version == packaged.version
    again = row(2, "accepted", SECOND.version, before=first)
    not_carried_out = in_use(settings, topic(*began, accepted.message(), again.message()))
    assert (not_carried_out.artifact.version, not_carried_out.before) == (FIRST.version, None)
    used = [*began, *second_parts, ModelsTopicMessage(USE, encode(second)), accepted.message(), again.message()]
    after = in_use(settings, topic(*used))
    assert after.before is not None
    assert after.before.version == FIRST.version
    assert in_use(settings, topic(*used, row(3, "restored", FIRST.version).message())).before is None
    gone = [ModelsTopicMessage(part.key, None) for part in first_parts]
    assert in_use(settings, topic(*used, *gone)).before is None
