"""Decisions of the trainer as rows on the models topic, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from model.artifact import Artifact
from model.errors import ArtifactError
from streams.errors import StateError
from streams.settings.settings import Settings
from streams.trainer.cycle import InUse
from streams.worker.rollout.models_topic import (
    HISTORY,
    Deployment,
    ModelsTopicMessage,
    ModelsTopicState,
    artifact_in_use,
)

ROWS = 200
"""Maximum number of rows on the topic."""


class HistoryRow(msgspec.Struct, frozen=True):
    """One decision.

    Attributes:
        id: Rises with time.
        at: When it was decided, RFC 3339.
        as_of: Time of the newest event (µs).
        action: waiting, refused, accepted, restored or failed.
        in_use: Version of the artifact that was in use.
        candidate: Version of the artifact that was judged; empty if there is none.
        reasons: Why, one sentence each.
        figures: The figures of the gate (`model.evaluation.gate.Judgement.row`); empty without any.
        before: The deployment that was in use; None if it was the artifact of the settings.
        events: Number of events that the trainer had.
        seconds: Duration of the cycle.
    """

    id: str
    at: str
    as_of: int
    action: str
    in_use: str
    candidate: str = ""
    reasons: list[str] = []
    figures: dict[str, Any] = {}
    before: Deployment | None = None
    events: int = 0
    seconds: float = 0.0

    def message(self) -> ModelsTopicMessage:
        """Return the row as a message of the models topic."""
        return ModelsTopicMessage(f"{HISTORY}/{self.id}", msgspec.json.encode(self))


_decode = msgspec.json.Decoder(HistoryRow).decode


def rows(state: ModelsTopicState) -> list[HistoryRow]:
    """Return all decisions, oldest first.

    Raises:
        StateError: Another program or release wrote one.
    """
    try:
        return [_decode(state.history[row_id]) for row_id in sorted(state.history)]
    except msgspec.DecodeError as error:
        raise StateError(f"a decision on the models topic cannot be read ({error}): upgrade this program") from error


def tombstones(state: ModelsTopicState) -> Iterator[ModelsTopicMessage]:
    """Yield the messages that delete the oldest rows beyond `ROWS`."""
    for row_id in sorted(state.history)[:-ROWS]:
        yield ModelsTopicMessage(f"{HISTORY}/{row_id}", None)


def in_use(settings: Settings, state: ModelsTopicState) -> InUse:
    """Return the artifact in use, and the one before if the trainer replaced it and its files are still there.

    A decision that was not carried out, because the trainer ended in between, names another artifact than the one in
    use, and is ignored; so is everything before a `model use` of an operator.

    Raises:
        ArtifactError: The artifact in use is incomplete.
    """
    artifact = artifact_in_use(settings, state)
    decided = [row for row in rows(state) if row.action in {"accepted", "restored"}]
    start = _start(settings, artifact, decided)
    if not decided or decided[-1].action != "accepted" or decided[-1].candidate != artifact.version:
        return InUse(artifact, start=start)
    row = decided[-1]
    try:
        before = state.artifact(row.before) if row.before else artifact_in_use(settings, None)
    except ArtifactError:
        return InUse(artifact, start=start)
    return InUse(artifact, before if _same_graph(before, artifact) else None, row.as_of, start)


def _start(settings: Settings, artifact: Artifact, decided: list[HistoryRow]) -> Artifact:
    """Return what trainings start from: not an artifact that the trainer made, if the one of the settings can be used.

    An artifact of the trainer has learned the posts that validate the next training.
    """
    if all(row.candidate != artifact.version for row in decided):
        return artifact
    try:
        given = artifact_in_use(settings, None)
    except ArtifactError:
        return artifact
    return given if _same_graph(given, artifact) else artifact


def _same_graph(one: Artifact, other: Artifact) -> bool:
    """Whether both artifacts read the same graph, so that workers can switch between them."""
    return (one.config.window, one.config.floor, one.config.horizon_s) == (
        other.config.window,
        other.config.floor,
        other.config.horizon_s,
    )
