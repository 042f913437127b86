"""Explanation of a user's score: its inputs are read between two steps, the attribution runs on another thread.

    read_inputs   on the shard's thread: copy the user's neighbourhood as it is served, with ids
    explain       on any thread: attention × value, contributions to the score, and changes since the previous score

`model/explain/attribution.py` computes contributions in log reach; this module adds ids, people and times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graphstate.types import OWN, RELATIONS, TYPES, USER
from model.artifact import Artifact
from model.evaluation.calibration import CalibrationMap
from model.explain.attribution import EdgeAttribution, Explainer, Explanation
from model.explain.numpy_forward import Given
from model.types import GraphInput, OwnInputs
from streams.messages.headers import rfc3339
from streams.shard.shard import Shard
from streams.worker.inspection.score_history import INTO_USERS, Publication, Publications, ScoreHistory, is_same_node

Int64s = NDArray[np.int64]

USER_EDGES_MAX = 1_024
"""Maximum edges into a user; beyond (only with windows of more than 256 or without a limit) no edge is explained."""
NEIGHBOURHOOD_EDGES_MAX = 8_192
"""Maximum edges into the user and its neighbours (with windows of 16 there are at most 2,880); the first layer of
neighbours beyond is used as served."""
"""Beginning of an `outputs` value: reach and percentile as published last."""
_INTO = [[number for number, relation in enumerate(RELATIONS) if relation.target == kind] for kind in range(len(TYPES))]
UNKNOWN = (
    "not available: since this worker opened the user's shard, it has published the user's score fewer than two times, "
    "or the scores of too many other users after it"
)


@dataclass
class ScoreInputs:
    """Copy of what a user's score is computed from.

    Attributes:
        about: Answer of `ShardReads.user`.
        artifact: Artifact that scores.
        graph: Neighbourhood; the user is row 0.
        inputs: Inputs of own features.
        inner: Number of rows per type whose first layer the user reads.
        given: First-layer outputs that are used as served, by place.
        names: Ids per type, by row.
        times: Times (µs) of the edges of `graph`, per relation.
        degrees: Number of all edges of the user, per relation into users.
        crowded: Whether the user has too many edges to explain them.
        embedding: Second-layer output as served `[H]`.
        score: Score as served (mean log reach).
        settled: Whether embedding and score are computed from the current graph.
        calibration: Map from scores to persons.
        published: Reach and percentile last published.
        before: Publication before the last one.
        arrived: (relation, id) of the sources that entered the user's windows since then.
        gone: (relation, id) of the sources that left them since then.
    """

    about: dict[str, Any]
    artifact: Artifact
    graph: GraphInput
    inputs: OwnInputs
    inner: dict[str, int]
    given: Given
    names: dict[str, list[str]]
    times: dict[str, Int64s]
    degrees: dict[str, int]
    crowded: bool
    embedding: NDArray[np.float32]
    score: float
    settled: bool
    calibration: CalibrationMap
    published: tuple[float, float] | None
    before: Publication | None
    arrived: set[tuple[str, str]]
    gone: list[tuple[str, str]]


def read_inputs(shard: Shard, user_id: str, publications: Publications | None = None) -> ScoreInputs | None:
    """Copy what a user's score is computed from; between two steps only.

    Args:
        shard: Shard to read.
        user_id: User id.
        publications: Recent publications of the shard.

    Returns:
        The copy; None for a user that is not live or belongs to another shard.
    """
    about = shard.reads.user(user_id) if shard.graph.users.owns(user_id) else None
    if about is None:
        return None
    graph, engine, inputs = shard.graph, shard.engine, shard.population.inputs
    tables = graph.tables
    user = graph.users.index[user_id]
    neighbourhood = _Neighbourhood(shard, user)
    before = None if publications is None else publications.previous(user)
    propagated = {name: tables[kind].propagated[neighbourhood.rows[kind]] for kind, name in enumerate(TYPES)}
    shard.publisher.ensure_capacity()
    last = shard.publisher.published
    published = float(last.reach[user]), float(last.percentile[user])
    degree = graph.windows.rows.degree
    names = {
        name: [tables[kind].ids[row] for row in neighbourhood.rows[kind].tolist()] for kind, name in enumerate(TYPES)
    }
    arrived, gone = _window_changes(shard, neighbourhood, before)
    return ScoreInputs(
        about=about,
        artifact=shard.artifact,
        graph=GraphInput.scaled(
            shard.artifact.config, propagated, dict(neighbourhood.edges), graph.users.own[[user]], inputs
        ),
        inputs=inputs,
        inner=dict(zip(TYPES, neighbourhood.inner, strict=True)),
        given=neighbourhood.given,
        names=names,
        times=neighbourhood.times,
        degrees={RELATIONS[number].name: int(degree[number][user]) for number in INTO_USERS},
        crowded=neighbourhood.crowded,
        embedding=np.array(engine.hidden2[np.array([user])])[0],
        score=float(engine.score[user]),
        settled=shard.staleness.embeddings_current,
        calibration=shard.publisher.calibration,
        published=None if np.isnan(published[0]) else (float(published[0]), float(published[1])),
        before=before,
        arrived=arrived,
        gone=gone,
    )


class _Neighbourhood:
    """Windows of a user and of its neighbours, copied from memory; places as in `NumpyForward`."""

    def __init__(self, shard: Shard, user: int) -> None:
        self._windows = shard.graph.windows
        counts = self._windows.rows.counts
        self.crowded = sum(int(counts[number][user]) for number in INTO_USERS) > USER_EDGES_MAX
        own = {} if self.crowded else {number: self._sources(number, np.array([user]))[0] for number in INTO_USERS}
        self.rows: list[Int64s] = [np.zeros(0, np.int64) for _ in TYPES]
        self.rows[USER] = np.array([user])
        for number, sources in own.items():
            self._add(RELATIONS[number].source, sources)
        self.inner = [len(rows) for rows in self.rows]
        self.given: Given = {}
        read, left = [], NEIGHBOURHOOD_EDGES_MAX
        for kind, rows in enumerate(self.rows):
            sizes = sum(
                (counts[number][rows].astype(np.int64) for number in _INTO[kind]), np.zeros(len(rows), np.int64)
            )
            # Windows of other shards' nodes are on those shards.
            computed = shard.graph.tables[kind].owned[rows] != 0
            computed &= np.cumsum(np.where(computed, sizes, 0)) <= left
            if kind == USER:
                computed[0] = True
            left -= int(sizes[computed].sum())
            read.append(rows[computed] if not self.crowded else rows[:0])
            places = np.flatnonzero(~computed)
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
        """Return the sources, targets and times (µs) of all edges in the windows of some targets."""
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


def _window_changes(
    shard: Shard, neighbourhood: _Neighbourhood, before: Publication | None
) -> tuple[set[tuple[str, str]], list[tuple[str, str]]]:
    """Return (relation, id) of the sources that entered the user's windows since a publication, and that left them."""
    arrived, gone = set[tuple[str, str]](), list[tuple[str, str]]()
    if before is None or before.sources is None:
        return arrived, gone
    for number, sources_before in before.sources.items():
        relation = RELATIONS[number]
        ids = shard.graph.tables[relation.source].ids
        sources, targets = neighbourhood.edges[relation.name]
        now = set(neighbourhood.rows[relation.source][sources[targets == 0]].tolist())
        then = {row for row, half in sources_before if is_same_node(shard, relation.source, row, half)}
        arrived |= {(relation.name, ids[row]) for row in now - then}
        gone += [(relation.name, ids[row]) for row in sorted(then - now)]
    return arrived, gone


class Shards(Protocol):
    """A worker's open shards (a `ShardHost`)."""

    async def read(self, question: Callable[[Any], Any]) -> list[Any]:
        """Return the answer of every open shard, between two steps."""
        ...


async def explain_user(shards: Shards, history: ScoreHistory, user_id: str) -> dict[str, Any] | None:
    """Explain the score of a user, None if no open shard has the user; the attribution runs on another thread."""
    answers = await shards.read(lambda shard: read_inputs(shard, user_id, history.publications(shard)))
    inputs = next((inputs for inputs in answers if inputs is not None), None)
    return None if inputs is None else await asyncio.to_thread(explain, inputs)


def explain(inputs: ScoreInputs) -> dict[str, Any]:
    """Return the answer of `/api/v1/users/{id}?explain=1`, as_of in µs; on any thread."""
    explainer = Explainer(inputs.artifact.weights, inputs.artifact.config)
    # Both are related to the population of now: what differs is the user's own.
    earlier = None if inputs.before is None else inputs.inputs(inputs.before.own[None])[0]
    if inputs.crowded:
        explained = explainer.alone(inputs.embedding, inputs.graph.own[0], earlier)
    else:
        explained = explainer(inputs.graph, inputs.inner, inputs.given, earlier)
    error = float(np.abs(explained.embedding - inputs.embedding).max())
    contribution = _Contributions(explained.score, inputs.calibration)
    neighbours = sorted((_message(inputs, contribution, message) for message in explained.messages), key=_rank)
    stranger = float(inputs.calibration.people(np.array([explained.stranger], np.float64))[0])
    explanation = {
        "log_reach": explained.score,
        "stranger": {"reach": stranger, "log_reach": explained.stranger},
        "error": max(error, abs(explained.score - inputs.score)),
        "settled": inputs.settled,
        "groups": {name: contribution.of(value) for name, value in explained.groups.items()},
        "features": {
            name: {"value": inputs.about["features"][name], **contribution.of(value)}
            for name, value in explained.features.items()
        },
        "relations": {
            name: {"edges": inputs.degrees[name], **contribution.of(value)}
            for name, value in explained.relations.items()
        },
        # A neighbour without an id was forgotten just now; its edge is removed once the owner's facts arrive.
        "neighbours": [message for message in neighbours if message["id"]],
        "unshown": sum(inputs.degrees.values()) if inputs.crowded else explained.unshown,
        "change": _change(inputs, explained, contribution),
    }
    return {**inputs.about, "explanation": explanation}


class _Contributions:
    """Converts contributions to one score from log reach to people.

    Args:
        score: The score (mean log reach).
        calibration: Map from scores to persons.
    """

    def __init__(self, score: float, calibration: CalibrationMap) -> None:
        self._score, self._calibration = score, calibration

    def of(self, log_reach: float) -> dict[str, float]:
        """Return a contribution in people and in log reach: the score minus the score without it."""
        scores = np.array([self._score, self._score - log_reach], np.float64)
        with_it, without = self._calibration.people(scores).tolist()
        return {"people": with_it - without, "log_reach": log_reach}


def _rank(message: dict[str, Any]) -> tuple[float, str, str]:
    """Sort key: largest contribution first; equal ones by relation and id."""
    return -round(abs(message["log_reach"]), 9), message["relation"], message["id"]


def _message(inputs: ScoreInputs, contribution: _Contributions, message: EdgeAttribution) -> dict[str, Any]:
    relation = next(relation for relation in RELATIONS if relation.name == message.relation)
    kind = TYPES[relation.source]
    described = {
        "relation": message.relation,
        "type": kind,
        "id": inputs.names[kind][message.source],
        "since": rfc3339(int(inputs.times[message.relation][message.edge])),
        "attention": message.attention.mean(axis=1).tolist(),
        "carried": message.carried.tolist(),
        **contribution.of(message.effect),
    }
    inner = sorted((_message(inputs, contribution, edge) for edge in message.inner), key=_rank)
    return {**described, "neighbours": [edge for edge in inner if edge["id"]]} if inner else described


def _change(inputs: ScoreInputs, explained: Explanation, contribution: _Contributions) -> dict[str, Any]:
    """Return the changes since the previous published score."""
    published = None if inputs.published is None else dict(zip(("reach", "percentile"), inputs.published, strict=True))
    before = inputs.before
    if before is None:
        return {"published": published, "before": None, "why": UNKNOWN}
    own_before = dict(zip(OWN, before.own.tolist(), strict=True))
    total = explained.score - float(np.log1p(before.reach))
    # A score of another model cannot be compared feature by feature.
    comparable = before.model == inputs.artifact.version
    windows_kept = before.sources is not None
    return {
        "published": published,
        "before": {
            "reach": before.reach,
            "percentile": before.percentile,
            "as_of": rfc3339(before.as_of),
            "model": before.model,
        },
        **contribution.of(total),
        "own": contribution.of(explained.earlier_own) if comparable else None,
        "rest": contribution.of(total - explained.earlier_own) if comparable else None,
        "features": {
            name: {"before": own_before[name], "now": inputs.about["features"][name], **contribution.of(value)}
            for name, value in explained.earlier.items()
        },
        "arrived": sorted([*edge] for edge in inputs.arrived if edge[1]) if windows_kept else None,
        "gone": [[*edge] for edge in inputs.gone] if windows_kept else None,
    }
