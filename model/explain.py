"""What carries a score: attention × value at each layer, and what the score would be without this or that.

    carried   ∂score/∂(sum that the message enters) · attention × value, attention held fixed     of an edge at a layer
    worth     score − score without it, computed anew                              of an edge, a relation, a feature

Both are in log reach, the score's own unit. Worths do not add up: attention goes to others when a neighbour is left
out. Without a feature means with its value of a stranger, of whom nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from model.config import OWN_SCALE, USER, ModelConfig
from model.passes import Changed, Given, Pass, Weights, Window, elu, elu_slope
from model.types import Bools, Float32s, Float64s, GraphInput, Int32s, Int64s

GROUPS = {
    "history": ("past_mean", "recent_mean", "last"),
    "posts": ("created", "created_long", "since_created", "cold"),
    "received": ("sharers", "received_short", "received_long", "since_received", "delay_received"),
    "made": ("made", "made_short", "made_long", "authors", "delay_made", "since_made"),
    "audience": ("followers", "following", "via"),
}
"""The own features by what they tell."""
STANDING, NEIGHBOURS = "standing", "neighbours"
"""The groups beside those of own features: what neighbours, too, read of the user, and all that the windows bring."""

MESSAGES = 64
"""Edges of a user that are left out one by one: all there are in four windows of 16, else those that carry most."""
BEHIND, BEHIND_EACH = 5, 8
"""Of so many neighbours it is told what they attended to themselves, and so many edges of each."""


@dataclass(frozen=True)
class Message:
    """One edge that a score was computed with.

    source: a row of the relation's source type. edge: a column of the graph's edges of the relation. attention,
    carried: per layer, `[layers, heads]` and `[layers]`. behind: edges into the source, of the first layer alone.
    """

    relation: str
    source: int
    edge: int
    attention: Float64s
    carried: Float64s
    worth: float
    behind: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """What a score is made of; scores and worths in log reach.

    stranger: the score of one of whom nothing is known. messages: by the size of their worth. unshown: how many more
    edges there are. relations, groups, features: worths by name. earlier: worths of own features against an earlier
    value of theirs, those that changed; earlier_own: of all of them together.
    """

    score: float
    embedding: Float64s
    stranger: float
    messages: list[Message]
    unshown: int
    relations: dict[str, float]
    groups: dict[str, float]
    features: dict[str, float]
    earlier: dict[str, float] = field(default_factory=dict)
    earlier_own: float = 0.0


class Explainer:
    """Explains scores of one artifact."""

    def __init__(self, weights: dict[str, Float32s], config: ModelConfig) -> None:
        self.config = config
        self._weights = Weights(weights, config)

    def __call__(
        self, graph: GraphInput, inner: dict[str, int], given: Given | None = None, earlier: Int32s | None = None
    ) -> Explanation:
        """Explain the score of the first user of a neighbourhood; see `model.passes.Pass`.

        earlier: own features (integers) that the user had at another time `[O]`.
        """
        done = Pass(self._weights, graph, inner, given)
        windows = done.windows
        sizes = {name: len(window.sources) for name, window in windows.items()}
        pull = _Pull(done)
        some = pull.largest()
        keeps = [_without(sizes, name, np.array([at])) for name, at in some]
        keeps += [_without(sizes, name, np.arange(size)) for name, size in sizes.items()]
        keeps.append({name: np.zeros(size, np.bool_) for name, size in sizes.items()})
        keep = {name: np.stack([one[name] for one in keeps]) for name in sizes}
        first = done.first_without(USER, 0, keep)
        worths = done.score - done.scores(Changed(len(keeps), keep=keep, first=first))
        found = sorted(zip(some, worths[: len(some)].tolist(), strict=True), key=lambda pair: (-abs(pair[1]), pair[0]))
        relations = dict(zip(sizes, worths[len(some) : -1].tolist(), strict=True))
        changed, changed_own = self._earlier(done.embedding, done.own, earlier)
        groups, features = self._own(done.embedding, done.own)
        groups[STANDING] = done.score - self._nobody(graph, inner, given).score
        groups[NEIGHBOURS] = float(worths[-1])
        return Explanation(
            done.score,
            done.embedding,
            self._stranger(),
            self._messages(done, pull, found),
            sum(sizes.values()) - len(some),
            relations,
            groups,
            features,
            changed,
            changed_own,
        )

    def alone(self, embedding: Float32s, own: Float32s, earlier: Int32s | None = None) -> Explanation:
        """Explain a score by the scaled own features alone, with an embedding `[H]` as it is."""
        wide, own_ = embedding.astype(np.float64), own.astype(np.float64)
        score = float(self._weights.score(wide[None], own_[None])[0])
        groups, features = self._own(wide, own_)
        return Explanation(
            score, wide, self._stranger(), [], 0, {}, groups, features, *self._earlier(wide, own_, earlier)
        )

    def _stranger_own(self) -> Float64s:
        own = np.zeros(len(self.config.own))
        if "cold" in self.config.own:
            own[self.config.own.index("cold")] = OWN_SCALE[self.config.own.index("cold")]
        return own

    def _stranger(self) -> float:
        weights = self._weights
        first = elu(weights.root(0, USER, np.zeros(len(self.config.propagated[USER]))))
        return float(weights.score(elu(weights.root(1, USER, first)), self._stranger_own()))

    def _nobody(self, graph: GraphInput, inner: dict[str, int], given: Given | None) -> Pass:
        """The pass with propagated features of the user as if nothing were known."""
        x = graph.x[USER].copy()
        x[0] = 0
        return Pass(self._weights, replace(graph, x={**graph.x, USER: x}), inner, given)

    def _worths(self, embedding: Float64s, own: Float64s, others: Float64s) -> list[float]:
        """What a score has more than with other own features `[C, O]`."""
        every = np.concatenate([own[None], others])
        scores = self._weights.score(np.repeat(embedding[None], len(every), axis=0), every)
        worths: list[float] = (scores[0] - scores[1:]).tolist()
        return worths

    def _own(self, embedding: Float64s, own: Float64s) -> tuple[dict[str, float], dict[str, float]]:
        """Worths of the groups of own features, and of each of them."""
        names, stranger = self.config.own, self._stranger_own()
        groups = {name: [some for some in members if some in names] for name, members in GROUPS.items()}
        known = {name for members in groups.values() for name in members}
        groups["other"] = [name for name in names if name not in known]
        groups = {name: members for name, members in groups.items() if members}
        rows = [*([name] for name in names), *groups.values()]
        others = np.repeat(own[None], len(rows), axis=0)
        for row, members in enumerate(rows):
            places = [names.index(name) for name in members]
            others[row, places] = stranger[places]
        worths = self._worths(embedding, own, others)
        each = dict(zip(names, worths[: len(names)], strict=True))
        return dict(zip(groups, worths[len(names) :], strict=True)), each

    def _earlier(self, embedding: Float64s, own: Float64s, earlier: Int32s | None) -> tuple[dict[str, float], float]:
        if earlier is None:
            return {}, 0.0
        was = (earlier.astype(np.float32) * OWN_SCALE).astype(np.float64)
        places = np.flatnonzero(was != own)
        others = np.repeat(own[None], len(places) + 1, axis=0)
        others[np.arange(len(places)), places] = was[places]
        others[-1] = was
        worths = self._worths(embedding, own, others)
        names = [self.config.own[place] for place in places]
        return dict(zip(names, worths[:-1], strict=True)), worths[-1]

    def _messages(self, done: Pass, pull: _Pull, found: list[tuple[tuple[str, int], float]]) -> list[Message]:
        """The edges in order of their worth; the first sources with what they attended to."""
        out, told = list[Message](), set[tuple[str, int]]()
        for (name, at), worth in found:
            kind, source = self._weights.convs[1][name].source, int(done.windows[name].sources[at])
            behind: tuple[Message, ...] = ()
            if len(told) < BEHIND and (kind, source) not in told | {(USER, 0)} and not pull.is_given(kind, source):
                told.add((kind, source))
                behind = self._behind(done, pull, kind, source)
            inner, outer = done.window(name, 0), done.windows[name]
            attention = np.stack([inner.attention[at], outer.attention[at]])
            out.append(Message(name, source, int(outer.edges[at]), attention, pull.own[name][:, at], worth, behind))
        return out

    def _behind(self, done: Pass, pull: _Pull, kind: str, row: int) -> tuple[Message, ...]:
        """What a neighbour attended to in the first layer: the edges that carry most, each left out."""
        names = [name for name, conv in self._weights.convs[0].items() if conv.target == kind]
        windows = {name: done.window(name, row) for name in names}
        carried = {name: pull.first(kind, row, window) for name, window in windows.items()}
        some = sorted(
            ((name, at) for name in names for at in range(len(carried[name]))),
            key=lambda edge: -abs(carried[edge[0]][edge[1]]),
        )[:BEHIND_EACH]
        if not some:
            return ()
        sizes = {name: len(windows[name].sources) for name in names}
        keeps = [_without(sizes, name, np.array([at])) for name, at in some]
        first = done.first_without(kind, row, {name: np.stack([one[name] for one in keeps]) for name in names})
        worths = done.score - done.scores(Changed(len(some), other=[(kind, row)] * len(some), other_first=first))
        found = [
            Message(
                name,
                int(windows[name].sources[at]),
                int(windows[name].edges[at]),
                windows[name].attention[at][None],
                carried[name][at][None],
                worth,
            )
            for (name, at), worth in zip(some, worths.tolist(), strict=True)
        ]
        return tuple(sorted(found, key=lambda message: -abs(message.worth)))


class _Pull:
    """How the score of a pass changes with what enters each layer.

    own: what the user's edges carry at each layer, `[2, n]` per relation.
    """

    def __init__(self, done: Pass) -> None:
        self._done = done
        self._second = done.weights.slope(done.embedding, done.own) * elu_slope(done.second)
        self.own: dict[str, Float64s] = {}
        for name, window in done.windows.items():
            carried = self.first(USER, 0, done.window(name, 0)), window.messages() @ self._second
            self.own[name] = np.stack(carried)

    def largest(self) -> list[tuple[str, int]]:
        """The user's edges to look at one by one, as relation and place in its window."""
        every = [
            (-abs(carried), name, at)
            for name, own in self.own.items()
            for at, carried in enumerate(own.sum(0).tolist())
        ]
        return [(name, at) for _, name, at in sorted(every)[:MESSAGES]]

    def is_given(self, kind: str, row: int) -> bool:
        """Whether a node's first layer was taken as it is."""
        return kind in self._done.given and row in self._done.given[kind][0]

    def first(self, kind: str, row: int, window: Window) -> Float64s:
        """What each edge into a node carries at the first layer, `[n]`, through all that reads the node."""
        done, weights = self._done, self._done.weights
        slope = np.zeros(len(self._second))
        if (kind, row) == (USER, 0):
            slope += weights.roots[1][USER][0] @ self._second
        for name, conv in weights.convs[1].items():
            if conv.source == kind:
                read = done.windows[name]
                for attention in read.attention[read.sources == row]:
                    slope += conv.value @ (np.repeat(attention, len(slope) // len(attention)) * self._second)
        carried: Float64s = window.messages() @ (slope * elu_slope(done.before[kind][row]))
        return carried


def _without(sizes: dict[str, int], relation: str, gone: Int64s) -> dict[str, Bools]:
    """Which edges are kept, per relation, where some of one are left out."""
    keep = {name: np.ones(size, np.bool_) for name, size in sizes.items()}
    keep[relation][gone] = False
    return keep
