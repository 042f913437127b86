"""Comparison of a chaos run with an undisturbed single shard that processed the same events.

Pure functions from the collected results to a list of problems, one line each, so that tests can show each failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from graphstate.types import CONTENT, RELATIONS, TYPES, USER, Snapshot, source_hash

TOLERANCE = 1e-5
"""Tolerance of reach: absolute below one person, relative above."""
POINTS = 0.5
PUBLISHED = 0.02
LEAST = 1e-3
"""Reach below which the relative publication threshold does not apply."""
SHOWN = 3

NodeKey = tuple[str, str]
Record = tuple[Any, ...]


class Score(NamedTuple):
    """A user's score; as_of in µs."""

    reach: float
    percentile: float
    as_of: int


@dataclass
class Truth:
    """The expected result. nodes: every node's integers and in-edges. dead: the bad messages."""

    scores: dict[str, Score]
    nodes: dict[NodeKey, Record]
    dead: set[bytes]
    sent: int


@dataclass
class RunResult:
    """The result of a run.

    answers: per user, the score by each worker that has the user. nodes: per shard, the nodes that it owns.
    topic: last reach on the score topic per user, None for a tombstone. taken: input messages in the mutations log.
    arrived: messages on the input topics. good: those of them with at least one valid event.
    """

    answers: dict[str, list[Score]]
    nodes: dict[int, dict[NodeKey, Record]]
    topic: dict[str, float | None]
    dead: set[bytes]
    arrived: set[tuple[str, int]]
    taken: set[tuple[str, int]]
    errors: list[str] = field(default_factory=list)


def owner(node: str, shards: int) -> int:
    """The shard that owns a node."""
    return source_hash(node) % shards


def records(graph: Snapshot, shards: int = 1, shard: int = 0) -> dict[NodeKey, Record]:
    """Nodes that a shard owns: their integers, and the edges of their windows by the ids of the sources."""
    edges: dict[NodeKey, set[tuple[str, str, int]]] = {}
    for relation, pairs, times in zip(RELATIONS, graph.edges, graph.times, strict=True):
        sources, targets = graph.ids[relation.source], graph.ids[relation.target]
        for source, target, time in zip(*pairs.tolist(), times.tolist(), strict=True):
            in_edges = edges.setdefault((TYPES[relation.target], targets[target]), set())
            in_edges.add((relation.name, sources[source], time))
    nodes: dict[NodeKey, Record] = {}
    for kind, name in enumerate(TYPES):
        for row, node in enumerate(graph.ids[kind]):
            if owner(node, shards) != shard or (kind == USER and not graph.live[row]):
                continue
            own = (tuple(graph.own[row].tolist()), int(graph.as_of[row])) if kind == USER else ()
            created = (graph.labels[row],) if kind == CONTENT and graph.created[row] else ()
            sources_of = frozenset(edges.get((name, node), ()))
            # A node that only appears as a source has no record at its owner.
            if own or created or sources_of:
                nodes[name, node] = tuple(graph.propagated[kind][row].tolist()), own, created, sources_of
    return nodes


def find_problems(truth: Truth, actual: RunResult) -> list[str]:
    """Return every problem of a run; empty if the result equals that of an undisturbed run."""
    return [
        *_messages(truth, actual),
        *_answers(truth, actual),
        *_graphs(truth, actual),
        *_topic(truth, actual),
        *actual.errors,
    ]


def _messages(truth: Truth, actual: RunResult) -> list[str]:
    problems = []
    if len(actual.arrived) < truth.sent:
        problems.append(f"{truth.sent - len(actual.arrived)} of {truth.sent} messages never reached the input topics")
    if lost := actual.arrived - actual.taken:
        problems.append(f"{len(lost)} messages are not in the mutations log, {_examples(lost)}")
    if unknown := actual.taken - actual.arrived:
        problems.append(f"{len(unknown)} messages in the mutations log are on no input topic, {_examples(unknown)}")
    if missing := truth.dead - actual.dead:
        problems.append(f"{len(missing)} bad messages are not on the dead-letter topic")
    if wrong := actual.dead - truth.dead:
        problems.append(f"{len(wrong)} good messages are on the dead-letter topic, {_examples(wrong)}")
    return problems


def _answers(truth: Truth, actual: RunResult) -> list[str]:
    problems = _sets("users with a score", set(truth.scores), set(actual.answers))
    if several := [user for user, scores in actual.answers.items() if len(scores) > 1]:
        problems.append(f"{len(several)} users are owned by more than one worker, {_examples(several)}")
    wrong: dict[str, list[str]] = {"reach": [], "percentile": [], "as-of time": []}
    for user, expected in truth.scores.items():
        for score in actual.answers.get(user, ()):
            if abs(score.reach - expected.reach) > TOLERANCE * max(1.0, expected.reach):
                wrong["reach"].append(f"{user}: {score.reach} for {expected.reach}")
            if abs(score.percentile - expected.percentile) > POINTS:
                wrong["percentile"].append(f"{user}: {score.percentile} for {expected.percentile}")
            if score.as_of != expected.as_of:
                wrong["as-of time"].append(f"{user}: {score.as_of} for {expected.as_of}")
    return problems + [
        f"{len(users)} users have a different {what}, {_examples(users)}" for what, users in wrong.items() if users
    ]


def _graphs(truth: Truth, actual: RunResult) -> list[str]:
    merged: dict[NodeKey, Record] = {}
    for nodes in actual.nodes.values():
        merged.update(nodes)
    problems = _sets("nodes", set(truth.nodes), set(merged))
    differ = [key for key in truth.nodes if key in merged and truth.nodes[key] != merged[key]]
    if differ:
        key = min(differ)
        parts = zip(truth.nodes[key], merged[key], strict=True)
        wanted, got = next((wanted, got) for wanted, got in parts if wanted != got)
        if isinstance(wanted, frozenset):
            wanted, got = sorted(wanted - got), sorted(got - wanted)
        problems.append(f"{len(differ)} nodes differ, such as {key}: {_short(got)} for {_short(wanted)}")
    return problems


def _topic(truth: Truth, actual: RunResult) -> list[str]:
    """A score may stay unpublished while it changes little; removed users must have a tombstone."""
    live = {user for user, reach in actual.topic.items() if reach is not None}
    problems = _sets("users on the score topic", set(truth.scores), live)
    wrong = []
    for user in live & set(truth.scores):
        published, reach = actual.topic[user] or 0.0, truth.scores[user].reach
        if abs(reach - published) > PUBLISHED * max(published, LEAST) + TOLERANCE * max(1.0, reach):
            wrong.append(f"{user}: {published} for {reach}")
    return problems + ([f"{len(wrong)} published scores are out of date, {_examples(wrong)}"] if wrong else [])


def _sets(what: str, expected: set[Any], got: set[Any]) -> list[str]:
    problems = []
    if missing := expected - got:
        problems.append(f"{len(missing)} of {len(expected)} {what} are missing, {_examples(missing)}")
    if extra := got - expected:
        problems.append(f"{len(extra)} {what} should not be there, {_examples(extra)}")
    return problems


def _examples(things: Any) -> str:
    return "such as " + "; ".join(_short(thing) for thing in sorted(things)[:SHOWN])


def _short(thing: Any) -> str:
    text = str(thing)
    return text if len(text) <= 160 else f"{text[:157]}..."


def quantile(buckets: Mapping[float, float], q: float) -> float | None:
    """The q-quantile of a histogram's cumulative counts by upper bound, linear within a bucket; None if it is empty."""
    total = max(buckets.values(), default=0.0)
    if not total:
        return None
    below, low = 0.0, 0.0
    for bound in sorted(buckets):
        if buckets[bound] >= q * total:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (q * total - below) / (buckets[bound] - below)
        below, low = buckets[bound], bound
    return low
