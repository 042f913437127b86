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
class Found:
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
            at = edges.setdefault((TYPES[relation.target], targets[target]), set())
            at.add((relation.name, sources[source], time))
    found: dict[NodeKey, Record] = {}
    for kind, name in enumerate(TYPES):
        for row, node in enumerate(graph.ids[kind]):
            if owner(node, shards) != shard or (kind == USER and not graph.live[row]):
                continue
            own = (tuple(graph.own[row].tolist()), int(graph.as_of[row])) if kind == USER else ()
            created = bool(graph.created[row]) if kind == CONTENT else None
            sources_of = frozenset(edges.get((name, node), ()))
            # A node that only appears as a source has no record at its owner.
            if own or created or sources_of:
                found[name, node] = tuple(graph.propagated[kind][row].tolist()), own, created, sources_of
    return found


def judge(truth: Truth, found: Found) -> list[str]:
    """Return every problem of a run; empty if the result equals that of an undisturbed run."""
    return [
        *_messages(truth, found),
        *_answers(truth, found),
        *_graphs(truth, found),
        *_topic(truth, found),
        *found.errors,
    ]


def _messages(truth: Truth, found: Found) -> list[str]:
    problems = []
    if len(found.arrived) < truth.sent:
        problems.append(f"{truth.sent - len(found.arrived)} of {truth.sent} messages never reached the input topics")
    if lost := found.arrived - found.taken:
        problems.append(f"{len(lost)} messages are not in the mutations log, {_some(lost)}")
    if unknown := found.taken - found.arrived:
        problems.append(f"{len(unknown)} messages in the mutations log are on no input topic, {_some(unknown)}")
    if missing := truth.dead - found.dead:
        problems.append(f"{len(missing)} bad messages are not on the dead-letter topic")
    if wrong := found.dead - truth.dead:
        problems.append(f"{len(wrong)} good messages are on the dead-letter topic, {_some(wrong)}")
    return problems


def _answers(truth: Truth, found: Found) -> list[str]:
    problems = _sets("users with a score", set(truth.scores), set(found.answers))
    if several := [user for user, scores in found.answers.items() if len(scores) > 1]:
        problems.append(f"{len(several)} users are owned by more than one worker, {_some(several)}")
    far: dict[str, list[str]] = {"reach": [], "percentile": [], "as-of time": []}
    for user, expected in truth.scores.items():
        for score in found.answers.get(user, ()):
            if abs(score.reach - expected.reach) > TOLERANCE * max(1.0, expected.reach):
                far["reach"].append(f"{user}: {score.reach} for {expected.reach}")
            if abs(score.percentile - expected.percentile) > POINTS:
                far["percentile"].append(f"{user}: {score.percentile} for {expected.percentile}")
            if score.as_of != expected.as_of:
                far["as-of time"].append(f"{user}: {score.as_of} for {expected.as_of}")
    return problems + [
        f"{len(users)} users have a different {what}, {_some(users)}" for what, users in far.items() if users
    ]


def _graphs(truth: Truth, found: Found) -> list[str]:
    together: dict[NodeKey, Record] = {}
    for nodes in found.nodes.values():
        together.update(nodes)
    problems = _sets("nodes", set(truth.nodes), set(together))
    differ = [key for key in truth.nodes if key in together and truth.nodes[key] != together[key]]
    if differ:
        key = min(differ)
        parts = zip(truth.nodes[key], together[key], strict=True)
        one, other = next((one, other) for one, other in parts if one != other)
        if isinstance(one, frozenset):
            one, other = sorted(one - other), sorted(other - one)
        problems.append(f"{len(differ)} nodes differ, such as {key}: {_short(other)} for {_short(one)}")
    return problems


def _topic(truth: Truth, found: Found) -> list[str]:
    """A score may stay unpublished while it changes little; removed users must have a tombstone."""
    live = {user for user, reach in found.topic.items() if reach is not None}
    problems = _sets("users on the score topic", set(truth.scores), live)
    far = []
    for user in live & set(truth.scores):
        published, reach = found.topic[user] or 0.0, truth.scores[user].reach
        if abs(reach - published) > PUBLISHED * max(published, LEAST) + TOLERANCE * max(1.0, reach):
            far.append(f"{user}: {published} for {reach}")
    return problems + ([f"{len(far)} published scores are out of date, {_some(far)}"] if far else [])


def _sets(what: str, expected: set[Any], got: set[Any]) -> list[str]:
    problems = []
    if missing := expected - got:
        problems.append(f"{len(missing)} of {len(expected)} {what} are missing, {_some(missing)}")
    if extra := got - expected:
        problems.append(f"{len(extra)} {what} should not be there, {_some(extra)}")
    return problems


def _some(things: Any) -> str:
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
