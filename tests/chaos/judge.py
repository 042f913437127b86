"""The judgement on a chaos run: what was found against what an undisturbed single shard makes of the same events.

Pure: it takes what was collected and returns what is wrong, one line each, so that it can be shown to fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from graphstate.types import CONTENT, RELATIONS, TYPES, USER, Snapshot, source_hash

TOLERANCE = 1e-5
"""Of reach, absolute below one person and relative above."""
POINTS = 0.5
PUBLISHED = 0.02
LEAST = 1e-3
"""Reach below which a publication does not ask for a share of it."""
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
    """What an undisturbed run has. nodes: every node's integers and in-edges. dead: the bad messages."""

    scores: dict[str, Score]
    nodes: dict[NodeKey, Record]
    dead: set[bytes]
    sent: int


@dataclass
class Found:
    """What a run left.

    answers: per user, the score that each worker gave that knows the user. nodes: per shard, the nodes that it owns.
    topic: the last reach on the score topic per user, None for a tombstone. taken: input messages in the mutations
    log. arrived: messages on the input topics. good: those of them that are not wholly bad.
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
    """What a shard knows of each node that it owns: integers, and the windows' edges by the ids of their sources."""
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
            # A node that is only somebody's source is nothing at its owner.
            if own or created or sources_of:
                found[name, node] = tuple(graph.propagated[kind][row].tolist()), own, created, sources_of
    return found


def judge(truth: Truth, found: Found) -> list[str]:
    """Everything that is wrong with a run; empty if it is as if nothing had happened."""
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
        problems.append(f"{len(missing)} bad messages are not among the dead letters")
    if wrong := found.dead - truth.dead:
        problems.append(f"{len(wrong)} good messages are among the dead letters, {_some(wrong)}")
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
        f"{len(users)} users have another {what}, {_some(users)}" for what, users in far.items() if users
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
    """A score may stay unpublished until it moved far enough; who is gone must have been withdrawn."""
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
    """The q-quantile of a histogram's cumulative counts by upper bound, linear within a bucket; None without any."""
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
