"""The analyst as a process on a real log: its topics equal a fresh computation, also after kills and forgets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import igraph
import pytest

from graphstate.memory.labels import read_labels
from graphstate.oracle.naive_graph import NaiveGraph
from graphstate.types import FOLLOWS, MEMBER_OF, GraphSpec, Kind, Mutation
from model.artifact import untrained
from model.config import ModelConfig
from streams.commands import _analyst
from streams.errors import AnalystError
from streams.kafka.topics import Topics, admin, create
from streams.messages.files import event_files
from streams.messages.packs.mutation_packs import Packer
from streams.settings.settings import Settings
from streams.shard.shard import Shard
from tests.support.analysts import AnalystProcess, naive, society
from tests.support.coroutines import run
from tests.support.queries import served
from tests.support.strategies import history
from tests.support.workers import producer, read_all, wait_for

LOG = [event for event in history(5, 3_000, users=60) if event.kind != Kind.FORGET]
LAST = max(event.time for event in LOG)
STOP_S = 300
"""An analyst that is asked to stop first ends what it computes, and on a busy machine that takes its time."""


@pytest.fixture
def analyst(settings: Settings) -> Iterator[AnalystProcess]:
    """An analyst that is not started yet, with its topics, killed at the end."""
    changes: dict[str, Any] = {"analyst_port": settings.web_port, "analyst_interval_s": 0.1, "retention_s": 0}
    changes["analyst_cascade_sets"] = 4_096
    settings = settings.model_copy(update=changes)
    with admin(settings) as client:
        create(client, Topics(settings).all())
    process = AnalystProcess(settings)
    yield process
    if process.process is not None:
        process.kill()


def send(settings: Settings, events: list[Mutation], first: int) -> None:
    """Write events to the log, as messages of one input partition from an offset on."""
    packer = Packer()
    for offset, event in enumerate(events, first):
        packer.add_message("in#1:0", offset, offset, 100, [event])
    with producer(settings) as sender:
        for value in packer.finish():
            sender.send(Topics(settings).mutations.name, value, partition=0)


def published(settings: Settings, topic: str = "centrality") -> dict[str, dict[str, Any]]:
    """The newest value of each key on a topic."""
    return newest(read_all(settings, [getattr(Topics(settings), topic).name]))


def newest(records: list[Any]) -> dict[str, dict[str, Any]]:
    """The newest value of each key."""
    values: dict[str, dict[str, Any]] = {}
    for record in sorted(records, key=lambda record: record.offset):
        if record.value is None:
            values.pop(record.key.decode(), None)
        else:
            values[record.key.decode()] = json.loads(record.value)
    return values


def estimates(value: dict[str, Any]) -> tuple[float | None, float | None]:
    """What a round adds to the measures of a pass."""
    return value.get("closeness"), value.get("betweenness")


def ask(analyst: AnalystProcess, path: str, question: dict[str, Any]) -> dict[str, Any]:
    """The answer to a question, as the commands ask it."""
    return _analyst.ask(analyst.settings, f"/api/v1/{path}", question)


def by_quality(analyst: AnalystProcess) -> list[dict[str, Any]]:
    """All users by their followers' quality."""
    top: list[dict[str, Any]] = _analyst.ask(analyst.settings, "/api/v1/top?by=quality_followers&limit=1000")["top"]
    return top


def expected(events: list[Mutation]) -> dict[str, tuple[int, int, int]]:
    """Core number, followers and following of each live user, by igraph from the naive graph."""
    edges, users = naive(events, GraphSpec(window=0))
    names = sorted(users)
    graph = igraph.Graph(directed=True)
    graph.add_vertices(names)
    graph.add_edges(sorted(edges[FOLLOWS]))
    core = graph.as_undirected(mode="collapse").simplify().coreness()
    return dict(zip(names, zip(core, graph.indegree(), graph.outdegree(), strict=True), strict=True))


def whole(values: dict[str, dict[str, Any]]) -> dict[str, tuple[int, int, int]]:
    """The whole numbers of published values."""
    return {user: (value["core"], value["followers"], value["following"]) for user, value in values.items()}


def communities(settings: Settings) -> dict[str, str]:
    """The published community of each user."""
    return {user: value["community"] for user, value in published(settings, "community").items()}


def smallest(events: list[Mutation]) -> dict[str, str]:
    """The smallest community that each user joined, of equal ones the first, from the naive graph."""
    members = naive(events, GraphSpec(window=0))[0][MEMBER_OF]
    size = Counter(community for _, community in members)
    found: dict[str, str] = {}
    for user, community in sorted(members, key=lambda member: (size[member[1]], member[1])):
        found.setdefault(user, community)
    return found


def authors_on(topic: str, events: list[Mutation]) -> set[str]:
    """The users with posts on a topic, from the naive graph."""
    graph = NaiveGraph(GraphSpec(window=0))
    graph.apply(events)
    contents = graph.derive()[0].values()
    return {content.creator for content in contents if content.labels and topic in read_labels(content.labels)[1]}


def check_queries(analyst: AnalystProcess, wanted: dict[str, tuple[int, int, int]]) -> None:
    """A worker that is configured with the analyst's address answers queries about its measures."""
    settings = analyst.settings
    folder = settings.datadir.parent / "queries"
    shard = Shard.open(folder, untrained(ModelConfig(), 1), GraphSpec())

    async def queries() -> None:
        async with served(shard, analyst=f"http://127.0.0.1:{settings.analyst_port}") as client:
            query = {"query": "RANK TOP 1000 users BY core WHERE tier = nano"}
            ranked = (await (await client.post("/api/v1/query", json=query)).json())["answer"]["top"]
            found = {one["user"]: (one["core"], one["followers"], one["following"]) for one in ranked}
            assert found == {user: counts for user, counts in wanted.items() if counts[1] > 0}
            query = {"query": f"SHOW centrality OF user '{ranked[0]['user']}'"}
            one = (await (await client.post("/api/v1/query", json=query)).json())["answer"]
            assert one["core"] == ranked[0]["core"]

    run(queries)
    shard.close()


def test_topics_equal_a_fresh_computation(analyst: AnalystProcess) -> None:
    """Published values equal igraph's on the naive graph: at first, after a forget, after a kill and more events."""
    settings, half = analyst.settings, len(LOG) // 2
    send(settings, LOG[:half], 0)
    analyst.start()
    analyst.wait_ready()
    assert whole(published(settings)) == expected(LOG[:half])
    check_queries(analyst, expected(LOG[:half]))
    wait_for(lambda: bool(published(settings, "seeds")), STOP_S, "the list of seeds")
    seeds = published(settings, "seeds")["reach"]
    person = next(user for user in seeds["seeds"] if user in published(settings, "community"))
    assert ask(analyst, "seeds", {"k": 3})["seeds"][0]["user"] == seeds["seeds"][0]
    cascade = ask(analyst, "seeds", {"k": 3, "model": "ic"})
    assert len(cascade["seeds"]) == 3
    assert published(settings, "seeds")["ic"]["theta"] == cascade["theta"] == 4_096
    assert 0 < cascade["guarantee"] < 1
    low, high = ask(analyst, "diffuse", {"users": [person]})["interval"]
    assert 1 <= low <= high
    assert person in [entry["user"] for entry in by_quality(analyst)]
    found = _analyst.ask(analyst.settings, "/api/v1/bots?limit=1000")
    assert (found["users"], len(found["bots"])) == (len(published(settings)), found["suspected"])
    forget = Mutation(Kind.FORGET, LAST + 1, person)
    send(settings, [forget], half)
    wait_for(lambda: person not in published(settings), STOP_S, "the tombstone")
    assert analyst.get(f"/api/v1/users/{person}")[0] == 404
    wait_for(lambda: person not in published(settings, "community"), STOP_S, "the tombstone of the community")
    wait_for(lambda: person not in published(settings, "seeds")["reach"]["seeds"], STOP_S, "a list without the person")
    assert person not in [seed["user"] for seed in ask(analyst, "seeds", {"k": 1_000})["seeds"]]
    wait_for(lambda: person not in [one["user"] for one in by_quality(analyst)], STOP_S, "a round without the person")
    with pytest.raises(AnalystError, match="no such user"):
        ask(analyst, "diffuse", {"users": [person]})
    assert whole(published(settings)) == expected([*LOG[:half], forget])
    analyst.kill()
    # Messages that were sent before come again, in front of the new ones.
    send(settings, LOG[:half], 0)
    send(settings, LOG[half:], half + 1)
    before = len(read_all(settings, [Topics(settings).centrality.name]))
    analyst.start()
    analyst.wait_ready()
    wanted = expected([*LOG[:half], forget, *LOG[half:]])
    assert whole(published(settings)) == wanted
    status, body = analyst.get("/api/v1/top?limit=1000")
    top = json.loads(body)
    assert (status, whole({entry["user"]: entry for entry in top["top"]})) == (200, wanted)
    assert sum(entry["pagerank"] for entry in top["top"]) == pytest.approx(1)
    assert analyst.stop(STOP_S) == 0
    sent = read_all(settings, [Topics(settings).centrality.name])
    held = newest(sent)
    assert len(sent) > before
    analyst.settings = analyst.settings.model_copy(update={"analyst_communities": "memberships"})
    analyst.start()
    analyst.wait_ready()
    # What did not move is not published again. If a first round has ended, the estimates have moved.
    later = read_all(settings, [Topics(settings).centrality.name])
    now = newest(later)
    moved = sum(estimates(now[user]) != estimates(held[user]) for user in held)
    assert len(later) - len(sent) == moved
    joined, authors = smallest([*LOG[:half], forget, *LOG[half:]]), authors_on("q", [*LOG[:half], forget, *LOG[half:]])
    assert joined
    wait_for(lambda: communities(settings) == joined, STOP_S, "the communities that members joined")
    seeds = ask(analyst, "seeds", {"k": 1_000, "topic": "q"})
    assert {seed["user"] for seed in seeds["seeds"]} == authors != set()
    assert ask(analyst, "seeds", {"topic": "no such topic"})["seeds"] == []


def test_next_actions_are_predicted(analyst: AnalystProcess, tmp_path: Path) -> None:
    """An artifact of `train-next` is served: habitual sharers of a new post come first, with probabilities."""
    events = society(300)
    file, folder = tmp_path / "events.jsonl", tmp_path / "next"
    event_files.write(file, map(event_files.row_of, events))
    command = [sys.executable, "-m", "streams.cli", "train-next", str(file), "--out", str(folder), "--json"]
    done = subprocess.run([*command, "--memory", "all", "--horizon", "6h"], capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout)
    assert (folder / "card.md").read_text().startswith("# Model card")
    assert {row["model"] for row in summary["table"]} == {"logistic regression", "LightGBM (served)"}
    analyst.settings = analyst.settings.model_copy(update={"analyst_next_model": str(folder)})
    last = max(event.time for event in events)
    send(analyst.settings, [*events, Mutation(Kind.CREATE, last + 1, "a1", "new")], 0)
    analyst.start()
    # Its kernels may have to be compiled first.
    wait_for(lambda: analyst.get("/readyz")[0] == 200, STOP_S, analyst.log.read_text)

    def predict(**question: Any) -> dict[str, Any] | None:
        try:
            return ask(analyst, "predict/share", question)
        except AnalystError:
            return None

    wait_for(lambda: predict(content="new") is not None, 60, "the first index")
    answer = predict(content="new")
    assert answer is not None
    assert answer["model"] == summary["model"]
    users = [entry["user"] for entry in answer["predictions"]]
    assert {event.user for event in events if event.kind == Kind.FOLLOW and event.other == "a1"} == set(users)
    habitual = [int(user[1:]) < 15 for user in users]
    assert habitual == sorted(habitual, reverse=True)
    named = predict(content="new", users=[users[-1], users[0]])
    assert named is not None
    assert [entry["user"] for entry in named["predictions"]] == [users[-1], users[0]]
    chances = [entry["probability"] for entry in (answer["predictions"][-1], answer["predictions"][0])]
    assert [entry["probability"] for entry in named["predictions"]] == pytest.approx(chances)
    for question, message in (
        ({"content": "none"}, "no such content"),
        ({"user": "u1"}, "field"),
    ):
        with pytest.raises(AnalystError, match=message):
            ask(analyst, "predict/share", question)


def test_a_graph_beyond_the_limit_is_refused(analyst: AnalystProcess) -> None:
    """A graph that needs more memory than it may ends the analyst with one line that has the numbers."""
    analyst.settings = analyst.settings.model_copy(update={"analyst_memory_mb": 16})
    many = [Mutation(Kind.FOLLOW, LAST, f"u{number}", f"v{number}") for number in range(40_000)]
    send(analyst.settings, many, 0)
    analyst.start()
    assert analyst.ended(STOP_S) == 1
    line = analyst.log.read_text().splitlines()[-1]
    assert line.startswith("groundswell: the graph needs")
    assert "GROUNDSWELL_ANALYST_MEMORY_MB" in line
