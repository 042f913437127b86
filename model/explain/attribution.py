"""Explanation of a score: what each edge carries, and how the score changes without an edge, a relation or a feature.

    carried   ∂score/∂(sum that a message enters) · attention · value, attention held fixed; per edge and layer
    effect    score − score recomputed without the edge, relation or feature

Both are in log reach, the unit of the score. Effects do not add up: without a neighbour, attention shifts to others.
"Without a feature" means with the value of a stranger, a user without any event.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from model.config import USER, ModelConfig
from model.explain.numpy_forward import Ablation, Given, NumpyForward, Weights, Window, elu, elu_slope
from model.types import Bools, Float32s, Float64s, GraphInput, Int64s

GROUPS = {
    "history": ("past_mean", "recent_mean", "last"),
    "posts": ("created", "created_long", "since_created", "cold"),
    "received": ("sharers", "received_short", "received_long", "since_received", "delay_received"),
    "made": ("made", "made_short", "made_long", "authors", "delay_made", "since_made"),
    "audience": ("followers", "following", "via"),
}
"""Own features by subject."""
STANDING, NEIGHBOURS = "standing", "neighbours"
"""Groups beside those of own features: the counts of the user that the layers read, and all edges together."""

EDGES_MAX = 64
"""Maximum number of a user's edges that are left out one by one: those that carry most."""
INNER_NEIGHBOURS, INNER_EDGES = 5, 8
"""Number of neighbours whose own edges are described, and of edges for each."""


@dataclass(frozen=True)
class EdgeAttribution:
    """One edge that a score was computed with.

    Attributes:
        relation: Name of the relation.
        source: Row of the source in its node type.
        edge: Column of the edge in the graph's edges of the relation.
        attention: Attention per layer `[layers, heads]`.
        carried: What the edge carries per layer `[layers]`, in log reach.
        effect: Score minus the score without the edge, in log reach.
        inner: First-layer edges into the source.
    """

    relation: str
    source: int
    edge: int
    attention: Float64s
    carried: Float64s
    effect: float
    inner: tuple[EdgeAttribution, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """Parts of a score; all scores and effects in log reach.

    Attributes:
        score: The score.
        embedding: Second-layer output of the user `[hidden]`.
        stranger: Score of a user without any event.
        messages: Edges by the size of their effect.
        unshown: Number of further edges.
        relations: Effect of leaving out all edges of a relation.
        groups: Effect of each group of features.
        features: Effect of each own feature.
        earlier: Effect of each own feature that changed, against an earlier value.
        earlier_own: Effect of all own features together, against earlier values.
    """

    score: float
    embedding: Float64s
    stranger: float
    messages: list[EdgeAttribution]
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
        self, graph: GraphInput, inner: dict[str, int], given: Given | None = None, earlier: Float32s | None = None
    ) -> Explanation:
        """Explain the score of the first user of a neighbourhood.

        Args:
            graph: The neighbourhood, see `model.explain.numpy_forward.NumpyForward`.
            inner: Number of first rows per node type that the user's windows hold.
            given: First-layer outputs that are taken as they are.
            earlier: Own inputs of the user at an earlier time `[O]`.
        """
        forward = NumpyForward(self._weights, graph, inner, given)
        windows = forward.windows
        sizes = {name: len(window.sources) for name, window in windows.items()}
        gradient = _Gradient(forward)
        edges = gradient.largest()
        keeps = [_without(sizes, name, np.array([index])) for name, index in edges]
        keeps += [_without(sizes, name, np.arange(size)) for name, size in sizes.items()]
        keeps.append({name: np.zeros(size, np.bool_) for name, size in sizes.items()})
        keep = {name: np.stack([kept[name] for kept in keeps]) for name in sizes}
        first = forward.first_without(USER, 0, keep)
        effects = forward.score - forward.scores(Ablation(len(keeps), keep=keep, first=first))
        effect_of = dict(zip(edges, effects[: len(edges)].tolist(), strict=True))
        edges.sort(key=lambda edge: (-abs(effect_of[edge]), edge))
        relations = dict(zip(sizes, effects[len(edges) : -1].tolist(), strict=True))
        changed, changed_own = self._earlier(forward.embedding, forward.own, earlier)
        groups, features = self._own(forward.embedding, forward.own)
        groups[STANDING] = forward.score - self._without_standing(graph, inner, given).score
        groups[NEIGHBOURS] = float(effects[-1])
        return Explanation(
            forward.score,
            forward.embedding,
            self._stranger(),
            self._attributions(forward, gradient, [(edge, effect_of[edge]) for edge in edges]),
            sum(sizes.values()) - len(edges),
            relations,
            groups,
            features,
            changed,
            changed_own,
        )

    def alone(self, embedding: Float32s, own: Float32s, earlier: Float32s | None = None) -> Explanation:
        """Explain a score by the own inputs `[O]` alone, with a fixed embedding `[hidden]`."""
        wide, own_ = embedding.astype(np.float64), own.astype(np.float64)
        score = float(self._weights.score(wide[None], own_[None])[0])
        groups, features = self._own(wide, own_)
        return Explanation(
            score, wide, self._stranger(), [], 0, {}, groups, features, *self._earlier(wide, own_, earlier)
        )

    def _stranger_own(self) -> Float64s:
        own = np.zeros(len(self.config.own))
        if "cold" in self.config.own:
            own[self.config.own.index("cold")] = 1
        return own

    def _stranger(self) -> float:
        weights = self._weights
        first = elu(weights.root(0, USER, np.zeros(len(self.config.propagated[USER]))))
        return float(weights.score(elu(weights.root(1, USER, first)), self._stranger_own()))

    def _without_standing(self, graph: GraphInput, inner: dict[str, int], given: Given | None) -> NumpyForward:
        """Run the network with the propagated features of the user set to 0."""
        x = graph.x[USER].copy()
        x[0] = 0
        return NumpyForward(self._weights, replace(graph, x={**graph.x, USER: x}), inner, given)

    def _effects(self, embedding: Float64s, own: Float64s, others: Float64s) -> list[float]:
        """Return the score minus the scores with other own features `[C, O]`."""
        every = np.concatenate([own[None], others])
        scores = self._weights.score(np.repeat(embedding[None], len(every), axis=0), every)
        effects: list[float] = (scores[0] - scores[1:]).tolist()
        return effects

    def _own(self, embedding: Float64s, own: Float64s) -> tuple[dict[str, float], dict[str, float]]:
        """Return the effects of the groups of own features, and of each own feature."""
        names, stranger = self.config.own, self._stranger_own()
        groups = {name: [member for member in members if member in names] for name, members in GROUPS.items()}
        known = {name for members in groups.values() for name in members}
        groups["other"] = [name for name in names if name not in known]
        groups = {name: members for name, members in groups.items() if members}
        rows = [*([name] for name in names), *groups.values()]
        others = np.repeat(own[None], len(rows), axis=0)
        for row, members in enumerate(rows):
            places = [names.index(name) for name in members]
            others[row, places] = stranger[places]
        effects = self._effects(embedding, own, others)
        each = dict(zip(names, effects[: len(names)], strict=True))
        return dict(zip(groups, effects[len(names) :], strict=True)), each

    def _earlier(self, embedding: Float64s, own: Float64s, earlier: Float32s | None) -> tuple[dict[str, float], float]:
        if earlier is None:
            return {}, 0.0
        was = earlier.astype(np.float64)
        places = np.flatnonzero(was != own)
        others = np.repeat(own[None], len(places) + 1, axis=0)
        others[np.arange(len(places)), places] = was[places]
        others[-1] = was
        effects = self._effects(embedding, own, others)
        names = [self.config.own[place] for place in places]
        return dict(zip(names, effects[:-1], strict=True)), effects[-1]

    def _attributions(
        self, forward: NumpyForward, gradient: _Gradient, edges: list[tuple[tuple[str, int], float]]
    ) -> list[EdgeAttribution]:
        """Describe edges (relation and index in its window) with their effects; the first sources with their edges."""
        attributions, expanded = list[EdgeAttribution](), set[tuple[str, int]]()
        for (name, index), effect in edges:
            kind, source = self._weights.convs[1][name].source, int(forward.windows[name].sources[index])
            inner: tuple[EdgeAttribution, ...] = ()
            seen = expanded | {(USER, 0)}
            if len(expanded) < INNER_NEIGHBOURS and (kind, source) not in seen and not gradient.is_given(kind, source):
                expanded.add((kind, source))
                inner = self._inner_edges(forward, gradient, kind, source)
            first, second = forward.window(name, 0), forward.windows[name]
            attention = np.stack([first.attention[index], second.attention[index]])
            carried = gradient.own[name][:, index]
            attributions.append(
                EdgeAttribution(name, source, int(second.edges[index]), attention, carried, effect, inner)
            )
        return attributions

    def _inner_edges(
        self, forward: NumpyForward, gradient: _Gradient, kind: str, row: int
    ) -> tuple[EdgeAttribution, ...]:
        """Describe the first-layer edges into a neighbour that carry most, each with the effect of leaving it out."""
        names = [name for name, conv in self._weights.convs[0].items() if conv.target == kind]
        windows = {name: forward.window(name, row) for name in names}
        carried = {name: gradient.carried(kind, row, window) for name, window in windows.items()}
        edges = sorted(
            ((name, index) for name in names for index in range(len(carried[name]))),
            key=lambda edge: -abs(carried[edge[0]][edge[1]]),
        )[:INNER_EDGES]
        if not edges:
            return ()
        sizes = {name: len(windows[name].sources) for name in names}
        keeps = [_without(sizes, name, np.array([index])) for name, index in edges]
        first = forward.first_without(kind, row, {name: np.stack([kept[name] for kept in keeps]) for name in names})
        ablation = Ablation(len(edges), other=[(kind, row)] * len(edges), other_first=first)
        effects = forward.score - forward.scores(ablation)
        attributions = [
            EdgeAttribution(
                name,
                int(windows[name].sources[index]),
                int(windows[name].edges[index]),
                windows[name].attention[index][None],
                carried[name][index][None],
                effect,
            )
            for (name, index), effect in zip(edges, effects.tolist(), strict=True)
        ]
        return tuple(sorted(attributions, key=lambda edge: -abs(edge.effect)))


class _Gradient:
    """Derivative of the score by the sums that messages enter.

    Attributes:
        own: What the user's edges carry at each layer, `[2, n]` per relation.
    """

    def __init__(self, forward: NumpyForward) -> None:
        self._forward = forward
        self._second = forward.weights.slope(forward.embedding, forward.own) * elu_slope(forward.second)
        self.own: dict[str, Float64s] = {}
        for name, window in forward.windows.items():
            carried = self.carried(USER, 0, forward.window(name, 0)), window.messages() @ self._second
            self.own[name] = np.stack(carried)

    def largest(self) -> list[tuple[str, int]]:
        """Return the user's edges that carry most, as relation and index in its window."""
        every = [
            (-abs(carried), name, index)
            for name, own in self.own.items()
            for index, carried in enumerate(own.sum(0).tolist())
        ]
        return [(name, index) for _, name, index in sorted(every)[:EDGES_MAX]]

    def is_given(self, kind: str, row: int) -> bool:
        """Return whether the first-layer output of a node was taken as it is."""
        return kind in self._forward.given and row in self._forward.given[kind][0]

    def carried(self, kind: str, row: int, window: Window) -> Float64s:
        """Return what each edge into a node carries at the first layer `[n]`, through all readers of the node."""
        forward, weights = self._forward, self._forward.weights
        slope = np.zeros(len(self._second))
        if (kind, row) == (USER, 0):
            slope += weights.roots[1][USER][0] @ self._second
        for name, conv in weights.convs[1].items():
            if conv.source == kind:
                read = forward.windows[name]
                for attention in read.attention[read.sources == row]:
                    slope += conv.value @ (np.repeat(attention, len(slope) // len(attention)) * self._second)
        carried: Float64s = window.messages() @ (slope * elu_slope(forward.before[kind][row]))
        return carried


def _without(sizes: dict[str, int], relation: str, gone: Int64s) -> dict[str, Bools]:
    """Return which edges are kept, per relation, without some edges of one relation."""
    keep = {name: np.ones(size, np.bool_) for name, size in sizes.items()}
    keep[relation][gone] = False
    return keep
