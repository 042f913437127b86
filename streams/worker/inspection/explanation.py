"""Why a user has this score: read between two steps, worked out beside them.

    look      on the shard's thread: copy the user's neighbourhood out of memory, as it is served, with names
    explain   on any thread: attention × value, what the score would be without this or that, and what changed

The arithmetic is `model/explain/attribution.py`'s, in log reach; here it gets names, people and times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graphstate.storage import row_layouts
from graphstate.types import OWN, RELATIONS, TYPES, USER
from model.artifact import Artifact
from model.explain.attribution import EdgeAttribution, Explainer, Explanation
from model.explain.numpy_forward import Given
from model.types import GraphInput
from streams.messages.headers import rfc3339
from streams.shard.score_publisher import reach_of
from streams.shard.shard import Shard
from streams.worker.inspection.score_history import INTO_USERS, Earlier, Publications, ScoreHistory, is_same

Int64s = NDArray[np.int64]

MOST_OWN = 1_024
"""Edges into a user: of more (only windows of more than 256, or without a limit, have them) none is explained."""
MOST_EDGES = 8_192
"""Edges into user and neighbours: windows of 16 have 2,880 at most. Beyond, first layers are taken as they are."""
_PUBLISHED = Struct("<ff")
"""How the value of a user in `outputs` begins: reach and percentile as published last."""
_INTO = [[number for number, relation in enumerate(RELATIONS) if relation.target == kind] for kind in range(len(TYPES))]
UNKNOWN = (
    "not known: since it began to score the user's shard this worker published the user's score less than twice, or "
    "those of too many others since"
)


@dataclass
class Look:
    """A user's neighbourhood and all that is to be said of it, copied.

    about: `Shard.user`'s answer. names: ids per type, row by row. times: per relation, of each edge of `graph` (µs).
    degrees: per relation into users, all edges that the user has. crowded: the windows are too large to be explained.
    embedding, score: as served. settled: whether those are what the graph makes of them. published: the reach and the
    percentile last published. before: what was published before that; arrived, gone: (relation, id) since then.
    """

    about: dict[str, Any]
    artifact: Artifact
    graph: GraphInput
    inner: dict[str, int]
    given: Given
    names: dict[str, list[str]]
    times: dict[str, Int64s]
    degrees: dict[str, int]
    crowded: bool
    embedding: NDArray[np.float32]
    score: float
    settled: bool
    published: tuple[float, float] | None
    before: Earlier | None
    arrived: set[tuple[str, str]]
    gone: list[tuple[str, str]]


def look(shard: Shard, user_id: str, publications: Publications | None = None) -> Look | None:
    """Copy what the score of a user is computed from; None for one who is not live here. Between two steps only."""
    about = shard.reads.user(user_id) if shard.graph.ledger.users.mine(user_id) else None
    if about is None:
        return None
    graph, engine = shard.graph, shard.engine
    tables = graph.ledger.tables
    user = graph.ledger.users.index[user_id]
    around = _Around(shard, user)
    before = None if publications is None else publications.before(user)
    propagated = {name: tables[kind].propagated[around.rows[kind]] for kind, name in enumerate(TYPES)}
    stored = graph.store.committed("outputs", row_layouts.node(USER, user))
    published = _PUBLISHED.unpack_from(stored) if stored else (np.nan, np.nan)
    degree = graph.windows.rows.degree
    names = {name: [tables[kind].ids[row] for row in around.rows[kind].tolist()] for kind, name in enumerate(TYPES)}
    arrived, gone = _moved(shard, around, before)
    return Look(
        about=about,
        artifact=shard.artifact,
        graph=GraphInput.scaled(shard.artifact.config, propagated, dict(around.edges), graph.ledger.users.own[[user]]),
        inner=dict(zip(TYPES, around.inner, strict=True)),
        given=around.given,
        names=names,
        times=around.times,
        degrees={RELATIONS[number].name: int(degree[number][user]) for number in INTO_USERS},
        crowded=around.crowded,
        embedding=np.array(engine.hidden2[np.array([user])])[0],
        score=float(engine.score[user]),
        settled=shard.staleness.embeddings_current,
        published=None if np.isnan(published[0]) else (float(published[0]), float(published[1])),
        before=before,
        arrived=arrived,
        gone=gone,
    )


class _Around:
    """The windows of a user and of the neighbours in memory; places as in `NumpyForward`."""

    def __init__(self, shard: Shard, user: int) -> None:
        self._windows = shard.graph.windows
        counts = self._windows.rows.counts
        self.crowded = sum(int(counts[number][user]) for number in INTO_USERS) > MOST_OWN
        own = {} if self.crowded else {number: self._sources(number, np.array([user]))[0] for number in INTO_USERS}
        self.rows: list[Int64s] = [np.zeros(0, np.int64) for _ in TYPES]
        self.rows[USER] = np.array([user])
        for number, sources in own.items():
            self._add(RELATIONS[number].source, sources)
        self.inner = [len(rows) for rows in self.rows]
        self.given: Given = {}
        read, left = [], MOST_EDGES
        for kind, rows in enumerate(self.rows):
            sizes = sum(
                (counts[number][rows].astype(np.int64) for number in _INTO[kind]), np.zeros(len(rows), np.int64)
            )
            # Other shards' nodes have their windows there.
            known = shard.graph.ledger.tables[kind].owned[rows] != 0
            known &= np.cumsum(np.where(known, sizes, 0)) <= left
            if kind == USER:
                known[0] = True
            left -= int(sizes[known].sum())
            read.append(rows[known] if not self.crowded else rows[:0])
            places = np.flatnonzero(~known)
            if len(places):
                self.given[TYPES[kind]] = places, np.array(shard.engine.hidden1[kind][rows[places]])
        pairs = []
        for number, relation in enumerate(RELATIONS):
            sources, targets, times = self._sources(number, read[relation.target])
            self._add(relation.source, sources)
            pairs.append((sources, targets, times))
        self.edges, self.times = {}, {}
        for relation, (sources, targets, times) in zip(RELATIONS, pairs, strict=True):
            ends = self._places(relation.source, sources), self._places(relation.target, targets)
            self.edges[relation.name], self.times[relation.name] = np.stack(ends), times

    def _sources(self, number: int, targets: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """The edges in the windows of some targets: sources, targets, times."""
        rows, pool = self._windows.rows, self._windows.pool
        counts = rows.counts[number][targets].astype(np.int64)
        offset = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        slots = np.repeat(rows.start[number][targets], counts) + offset
        return pool.source[slots].astype(np.int64), np.repeat(targets, counts), pool.time[slots]

    def _add(self, kind: int, rows: Int64s) -> None:
        self.rows[kind] = np.concatenate([self.rows[kind], np.setdiff1d(rows, self.rows[kind])])

    def _places(self, kind: int, rows: Int64s) -> Int64s:
        order = np.argsort(self.rows[kind])
        places: Int64s = order[np.searchsorted(self.rows[kind], rows, sorter=order)]
        return places


def _moved(shard: Shard, around: _Around, before: Earlier | None) -> tuple[set[tuple[str, str]], list[tuple[str, str]]]:
    """Who came into the user's windows since an earlier publication, and who left them, as (relation, id)."""
    arrived, gone = set[tuple[str, str]](), list[tuple[str, str]]()
    if before is None or before.sources is None:
        return arrived, gone
    for number, was in before.sources.items():
        relation = RELATIONS[number]
        ids = shard.graph.ledger.tables[relation.source].ids
        sources, targets = around.edges[relation.name]
        now = set(around.rows[relation.source][sources[targets == 0]].tolist())
        same = {row for row, half in was if is_same(shard, relation.source, row, half)}
        arrived |= {(relation.name, ids[row]) for row in now - same}
        gone += [(relation.name, ids[row]) for row in sorted(same - now)]
    return arrived, gone


class Readable(Protocol):
    """A worker's open shards (a `ShardHost`)."""

    async def read(self, question: Callable[[Any], Any]) -> list[Any]:
        """Return the answer of every open shard, between two steps."""
        ...


async def explain_user(shards: Readable, history: ScoreHistory, user_id: str) -> dict[str, Any] | None:
    """Explain the score of a user; None for one that no open shard has. The arithmetic runs beside the shards."""
    looks = await shards.read(lambda shard: look(shard, user_id, history.of(shard)))
    seen = next((seen for seen in looks if seen is not None), None)
    return None if seen is None else await asyncio.to_thread(explain, seen)


def explain(seen: Look) -> dict[str, Any]:
    """The answer of `/api/v1/users/{id}?explain=1`, as_of in µs; on any thread."""
    explainer = Explainer(seen.artifact.weights, seen.artifact.config)
    earlier = None if seen.before is None else seen.before.own
    if seen.crowded:
        found = explainer.alone(seen.embedding, seen.graph.own[0], earlier)
    else:
        found = explainer(seen.graph, seen.inner, seen.given, earlier)
    error = float(np.abs(found.embedding - seen.embedding).max())
    worth = _Worths(found.score)
    told = sorted((_message(seen, worth, message) for message in found.messages), key=_rank)
    stranger = float(reach_of(np.array([found.stranger], np.float64))[0])
    explanation = {
        "log_reach": found.score,
        "stranger": {"reach": stranger, "log_reach": found.stranger},
        "error": max(error, abs(found.score - seen.score)),
        "settled": seen.settled,
        "groups": {name: worth.of(value) for name, value in found.groups.items()},
        "features": {
            name: {"value": seen.about["features"][name], **worth.of(value)} for name, value in found.features.items()
        },
        "relations": {
            name: {"edges": seen.degrees[name], **worth.of(value)} for name, value in found.relations.items()
        },
        # Whoever has no name any more was forgotten a moment ago, and the owner's word is on its way.
        "neighbours": [message for message in told if message["id"]],
        "unshown": sum(seen.degrees.values()) if seen.crowded else found.unshown,
        "change": _change(seen, found, worth),
    }
    return {**seen.about, "explanation": explanation}


class _Worths:
    """Worths in people and in log reach, against one score."""

    def __init__(self, score: float) -> None:
        self._score = score

    def of(self, worth: float) -> dict[str, float]:
        """What a score has more than without something."""
        with_it, without = reach_of(np.array([self._score, self._score - worth], np.float64)).tolist()
        return {"people": with_it - without, "log_reach": worth}


def _rank(told: dict[str, Any]) -> tuple[float, str, str]:
    """The largest first; in the order of their names those that are worth the same."""
    return -round(abs(told["log_reach"]), 9), told["relation"], told["id"]


def _message(seen: Look, worth: _Worths, message: EdgeAttribution) -> dict[str, Any]:
    relation = next(relation for relation in RELATIONS if relation.name == message.relation)
    kind = TYPES[relation.source]
    told = {
        "relation": message.relation,
        "type": kind,
        "id": seen.names[kind][message.source],
        "since": rfc3339(int(seen.times[message.relation][message.edge])),
        "attention": message.attention.mean(axis=1).tolist(),
        "carried": message.carried.tolist(),
        **worth.of(message.effect),
    }
    behind = sorted((_message(seen, worth, one) for one in message.inner), key=_rank)
    return {**told, "neighbours": [one for one in behind if one["id"]]} if behind else told


def _change(seen: Look, found: Explanation, worth: _Worths) -> dict[str, Any]:
    """What is different from the score before."""
    published = None if seen.published is None else dict(zip(("reach", "percentile"), seen.published, strict=True))
    before = seen.before
    if before is None:
        return {"published": published, "before": None, "why": UNKNOWN}
    was = dict(zip(OWN, before.own.tolist(), strict=True))
    total = found.score - float(np.log1p(before.reach))
    # Of another model the score before tells nothing about what the features and neighbours do in this one.
    same = before.model == seen.artifact.version
    known = before.sources is not None
    return {
        "published": published,
        "before": {
            "reach": before.reach,
            "percentile": before.percentile,
            "as_of": rfc3339(before.as_of),
            "model": before.model,
        },
        **worth.of(total),
        "own": worth.of(found.earlier_own) if same else None,
        "rest": worth.of(total - found.earlier_own) if same else None,
        "features": {
            name: {"before": was[name], "now": seen.about["features"][name], **worth.of(value)}
            for name, value in found.earlier.items()
        },
        "arrived": sorted([*edge] for edge in seen.arrived if edge[1]) if known else None,
        "gone": [[*edge] for edge in seen.gone] if known else None,
    }
