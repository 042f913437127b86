"""Predictions of who shares next, from the live graph: features equal those computed offline from a longer log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from graphstate.event_columns import EventColumns
from graphstate.types import Kind, Mutation
from model.analysis.exposures import DAY_US, SECOND_US
from model.next_action.artifact import NextActionArtifact
from model.next_action.features import FEATURES, features
from model.next_action.timeline import FOREVER
from streams.analyst.answers.next_actions import Index, NextActions, Posts, ShareQuestion, index, predict
from streams.analyst.graph.live_graph import LiveGraph
from streams.analyst.measures import measure
from streams.commands import _next_training as next_action
from streams.commands._social_history import social_history
from streams.errors import AnalystError, SettingsError
from streams.settings.settings import Settings
from tests.support.analysts import society
from tests.support.coroutines import run
from tests.support.strategies import history

REMOVALS = (Kind.UNSHARE, Kind.DELETE, Kind.FORGET)
CONTENT_KINDS = (Kind.CREATE, Kind.DELETE, Kind.SHARE, Kind.UNSHARE, Kind.LABELS)
HOUR_US = 3_600 * SECOND_US


def live(events: list[Mutation], memory: int = FOREVER, retention_s: int = 0) -> tuple[LiveGraph, Index]:
    """The live graph of some events, and its index."""
    graph = LiveGraph(1, retention_s, 0, 4_096)
    for begin in range(0, len(events), 200):
        batch = events[begin : begin + 200]
        graph.apply(0, EventColumns.of(batch), -1)
    graph.update()
    registers = graph.registers
    contents = registers.contents
    posts = Posts(registers.history(), registers.post_rows(), list(contents.ids), contents.rows)
    return graph, index(measure(graph, 1, {}), posts, memory)


@pytest.mark.parametrize("days", [0, 3])
@pytest.mark.parametrize("seed", [1, 2])
def test_live_features_equal_offline_ones(seed: int, days: int) -> None:
    """After a replay up to a moment every feature of every user and post equals the one from the whole file.

    With retention the live graph has forgotten what the memory does not reach; the file still has it. What is taken
    back later is as if it had never been, so such events are left out after the moment.
    """
    events = sorted(history(seed, 4_000), key=lambda event: event.time)
    at = events[2_000].time
    events = [event for event in events if event.time <= at or event.kind not in REMOVALS]
    memory = days * DAY_US or FOREVER
    if days:
        # New contents every two days, each created once: an evicted one that is created again is another one live.
        events = [
            event._replace(other=f"{event.other}-{event.time // (2 * DAY_US)}", extra=None)
            if event.kind in CONTENT_KINDS else event
            for event in events
        ]  # fmt: skip
        creates = {event.other: event for event in reversed(events) if event.kind == Kind.CREATE}
        events = [event for event in events if event.kind != Kind.CREATE or creates[event.other] is event]
    before = [event for event in events if event.time <= at]
    graph, known = live(before, memory, days * 86_400)
    whole, made = social_history(events), next_action.index(events, memory)
    contents = graph.registers.contents.rows
    posts = [
        content for content, row in contents.items()
        if known.post_of[row] >= 0 and known.made.born[known.post_of[row]] >= at - min(memory, at)
    ]  # fmt: skip
    users = [user for user, row in graph.registers.users.rows.items() if known.measures.live[row]]
    pairs = [(content, user) for content in posts for user in users]
    assert len(pairs) > 100
    assert known.at == at + 1
    moments = np.full(len(pairs), at + 1)
    served = features(
        known.made, np.array([known.post(content) for content, _ in pairs], np.int32),
        np.array([known.measures.row(user) for _, user in pairs], np.int32), moments,
    )  # fmt: skip
    offline = features(
        made, np.array([whole.posts[content] for content, _ in pairs], np.int32),
        np.array([whole.users[user] for _, user in pairs], np.int32), moments,
    )  # fmt: skip
    for column, name in enumerate(FEATURES):
        assert served[:, column] == pytest.approx(offline[:, column], abs=1e-12), name
    assert (served[:, FEATURES.index("active")] > 0).sum() > 20
    if days:
        assert len(known.made.author) < len(whole.posts)


@pytest.fixture(scope="module")
def artifact() -> NextActionArtifact:
    """An artifact that learned from a society in which half of the users share and the others never do."""
    return next_action.train(society(300), (6 * HOUR_US, FOREVER), 0, ("train", "a society"), lambda _: None)[0]


def test_the_exposed_are_predicted(artifact: NextActionArtifact) -> None:
    """Without names, all who are exposed and have not shared, the most probable first; habitual sharers are above."""
    events = [*society(300)]
    last = max(event.time for event in events)
    events.append(Mutation(Kind.CREATE, last + 1, "a1", "new"))
    _, known = live(events)
    answer = predict(ShareQuestion(content="new"), artifact, known, known.measures)
    followers = {event.user for event in events if event.kind == Kind.FOLLOW and event.other == "a1"}
    assert {entry["user"] for entry in answer["predictions"]} == followers
    assert answer["candidates"] == len(followers)
    assert (answer["model"], answer["horizon_s"], answer["content"]) == (artifact.version, 6 * 3_600, "new")
    chances = [entry["probability"] for entry in answer["predictions"]]
    assert chances == sorted(chances, reverse=True)
    by_user = {entry["user"]: entry["probability"] for entry in answer["predictions"]}
    sharers = [by_user[user] for user in followers if int(user[1:]) < 15]
    others = [by_user[user] for user in followers if int(user[1:]) >= 15]
    assert min(sharers) > max(others)
    assert np.mean(sharers) == pytest.approx(0.7, abs=0.15)
    first = predict(ShareQuestion(content="new", limit=3), artifact, known, known.measures)["predictions"]
    assert first == answer["predictions"][:3]


def test_named_users_come_in_their_order_with_their_state(artifact: NextActionArtifact) -> None:
    """A user who shared the post, or follows no user that acted on it, has no probability."""
    events = society(300)
    last = max(event.time for event in events)
    followers = sorted({event.user for event in events if event.kind == Kind.FOLLOW and event.other == "a1"})
    events += [
        Mutation(Kind.CREATE, last + 1, "a1", "new"),
        Mutation(Kind.SHARE, last + 2, followers[0], "new"),
        Mutation(Kind.FOLLOW, last + 2, "stranger", "a2"),
    ]
    _, known = live(events)
    question = ShareQuestion(content="new", users=["stranger", followers[1], followers[0], "a1"])
    found = predict(question, artifact, known, known.measures)["predictions"]
    assert [entry["user"] for entry in found] == question.users
    assert [entry["state"] for entry in found] == ["not_exposed", "exposed", "shared", "shared"]
    assert [entry["probability"] is None for entry in found] == [True, False, True, True]
    for changes, message in (({"users": ["nobody"]}, "no such user"), ({"content": "none"}, "no such content")):
        unknown = ShareQuestion(**{"content": "new", **changes})
        with pytest.raises(AnalystError, match=message):
            predict(unknown, artifact, known, known.measures)


def test_forgotten_and_deleted_ones_leave(artifact: NextActionArtifact) -> None:
    """A person who was forgotten since the index was made is neither predicted nor known."""
    events = society(300)
    last = max(event.time for event in events)
    events.append(Mutation(Kind.CREATE, last + 1, "a1", "new"))
    graph, known = live(events)
    person = predict(ShareQuestion(content="new"), artifact, known, known.measures)["predictions"][0]["user"]
    later = [Mutation(Kind.FORGET, last + 2, person), Mutation(Kind.DELETE, last + 2, "a1", "new")]
    graph.apply(0, EventColumns.of(later), last + 2)
    graph.update()
    measures = measure(graph, 2, {})
    rest = predict(ShareQuestion(content="new"), artifact, known, measures)["predictions"]
    assert rest
    assert person not in [entry["user"] for entry in rest]
    with pytest.raises(AnalystError, match="no such user"):
        predict(ShareQuestion(content="new", users=[person]), artifact, known, measures)
    _, renewed = live([*events, *later])
    with pytest.raises(AnalystError, match="no such content"):
        predict(ShareQuestion(content="new"), artifact, renewed, renewed.measures)


def test_an_artifact_must_fit_the_retention(artifact: NextActionArtifact, tmp_path: Path) -> None:
    """One that reads further back than the retention is refused; without an artifact there are no answers."""
    artifact.save(tmp_path)
    assert NextActions.of(Settings(), lambda *_: None) is None
    with pytest.raises(SettingsError, match=r"reads all of the past, .* train with --memory"):
        NextActions.of(Settings(analyst_next_model=str(tmp_path), retention_s=86_400), lambda *_: None)


def test_the_index_is_renewed(artifact: NextActionArtifact, tmp_path: Path) -> None:
    """An index is made beside the passes; one of a pass that was used already is not made again."""
    artifact.save(tmp_path)
    _, known = live(society(50))
    stages: list[str] = []

    async def renew() -> None:
        settings = Settings(analyst_next_model=str(tmp_path), retention_s=0)
        made = asyncio.Event()

        def note(stage: str, _: float) -> None:
            stages.append(stage)
            made.set()

        actions = NextActions.of(settings, note)
        assert actions is not None
        assert actions.wants(known.measures)
        actions.begin(known.measures, known.posts)
        assert not actions.wants(known.measures)
        await made.wait()
        assert actions.latest is not None
        assert np.array_equal(actions.latest.made.pairs, known.made.pairs)
        assert not actions.wants(known.measures)
        await actions.close()

    run(renew)
    assert stages == ["next_actions"]
