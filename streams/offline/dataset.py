"""Training data from events: snapshots of the graph in time, with labels that close before the cut.

    first event ──── T₁ ── T₂ ── … ── T_n ──── T_n + window ──── until
                     snapshot times            posts end         their horizons have closed

The graph of a snapshot holds nothing later than its time, and its labels nothing later than `until`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from graphstate.state import GraphState
from graphstate.types import USER, Kind, Mutation
from model.config import ModelConfig, duration_text
from model.errors import TrainingError
from model.evaluation.leaderboard import Standing, standings
from model.evaluation.metrics import rank_mean
from model.training.labels import Posts
from model.types import Bools, Float64s, GraphInput, Int64s
from streams.shard.graph_view import graph_input, graph_spec

if TYPE_CHECKING:
    from model.artifact import Artifact
    from model.training.fitting import TrainingSnapshot

_SECOND = 1_000_000
_BATCH = 16_384
_STALENESS_BATCH = 100
"""Batch size while staleness is counted; a worker that gets some thousand events per second has about the same."""
_HASHES = 1 << 32
_POSTS_PER_WINDOW = 2_000
"""Number of posts for which a window is long enough."""
_WINDOW_MAX = 28 * 86_400 * _SECOND

Progress = Callable[[str], None]


@dataclass(frozen=True)
class SnapshotSchedule:
    """Times of the snapshots.

    Attributes:
        times: Times of the snapshots (µs).
        window: Length of the window whose posts label each snapshot (µs).
    """

    times: tuple[int, ...]
    window: int


@dataclass(frozen=True)
class Dataset:
    """Data of a training and its evaluation.

    Attributes:
        snapshots: Labelled snapshots in order of time.
        final: The graph at the cut.
        users: Ids of its users `[n]`.
        live: Whether each user is live `[n]`.
        held_out: Whether each user is held out of training `[n]`.
        warm: Whether each user has a post `[n]`.
        followers: Number of followers `[n]`.
        events: Number of events.
        first: Time of the first event (µs).
        until: Time of the last event (µs).
        stale: Stale nodes per 1,000 events; None if they were not counted.
    """

    snapshots: list[TrainingSnapshot]
    final: GraphInput
    users: list[str]
    live: Bools
    held_out: Bools
    warm: Bools
    followers: Int64s
    events: int
    first: int
    until: int
    stale: float | None = None


class Staleness:
    """Counts nodes whose propagated features change while the graph applies events.

    Users, contents and communities count once per batch, in batches of 100 events, over the last half of the events. A
    snapshot ends a batch early.

    Args:
        events: Number of all events.
    """

    def __init__(self, events: int) -> None:
        self._begin = events // 2
        self._events = self._rows = 0

    def size(self, done: int) -> int:
        """Return the maximum size of the batch after `done` events."""
        return _STALENESS_BATCH if done >= self._begin else min(_BATCH, self._begin - done)

    def count(self, done: int, events: int, propagated: list[Int64s]) -> None:
        """Count the changes of a batch.

        Args:
            done: Number of events before the batch.
            events: Number of events in the batch.
            propagated: Changed rows per node type.
        """
        if done >= self._begin:
            self._events += events
            self._rows += sum(map(len, propagated))

    @property
    def per_1000_events(self) -> float:
        """Number of nodes that 1,000 events changed."""
        return 1000 * self._rows / max(1, self._events)


def is_held_out(user: str, share: float, seed: int) -> bool:
    """Return whether a user is kept for evaluation; depends on the id and the seed only."""
    digest = blake2b(user.encode(), digest_size=4, key=seed.to_bytes(8, "big", signed=True)).digest()
    return int.from_bytes(digest, "big") < share * _HASHES


def plan(posts: Int64s, until: int, horizon: int, snapshots: int) -> SnapshotSchedule:
    """Place the snapshots and choose the length of the window.

    A window is at least a horizon long, half of one in a short history. Snapshots are evenly spaced from a sixth of the
    span on; the first twentieth of the posts does not count towards the span. With few posts the windows overlap: long
    windows with many labels train better than short ones with few. The horizon may then cut the newest windows short.

    Args:
        posts: Times of the posts, sorted (µs).
        until: The cut (µs).
        horizon: Length of the horizon (µs).
        snapshots: Maximum number of snapshots.

    Raises:
        TrainingError: the events are too short for a horizon to close.
    """
    first = int(posts[len(posts) // 20])
    span = until - first
    earliest = first + span // 6
    least = max(horizon, span // 12)
    if until - horizon - least < earliest:
        least = horizon // 2
    per_post = span // max(1, len(posts) - len(posts) // 20)
    window = max(least, min(per_post * _POSTS_PER_WINDOW, _WINDOW_MAX, span // 3))
    latest = until - horizon - max(least, window * 3 // 5)
    if until - horizon - least < earliest:
        # The last snapshot must lie after a sixth of the span, with a window and a horizon after it.
        needed = (horizon + least) * 6 // 5
        spans = [duration_text(time / _SECOND) for time in (span, needed, horizon)]
        shorter = max(1, span * 5 // 9 // (3600 * _SECOND))
        raise TrainingError(
            f"the posts span {spans[0]}, {spans[1]} are needed for a horizon of {spans[2]}: give more events, a later "
            f"--until, or --horizon {shorter}h"
        )
    times = np.linspace(earliest, max(earliest, latest), snapshots)
    return SnapshotSchedule(tuple(sorted({int(time) for time in times})), window)


def effective_events(mutations: Iterable[Mutation]) -> tuple[dict[str, tuple[int, str]], dict[tuple[str, str], int]]:
    """Return the posts and shares in force: what a delete, unshare or forget covers up to its time does not count.

    Returns:
        Time (µs) and author of the first claim by content, and time (µs) of the first share by (user, content).
    """
    events = list(mutations)
    deleted: dict[str, int] = {}
    unshared: dict[tuple[str, str], int] = {}
    forgotten: dict[str, int] = {}
    for kind, time, user, other, *_ in events:
        if kind == Kind.DELETE:
            deleted[other] = max(time, deleted.get(other, time))
        elif kind == Kind.UNSHARE:
            unshared[user, other] = max(time, unshared.get((user, other), time))
        elif kind == Kind.FORGET:
            forgotten[user] = max(time, forgotten.get(user, time))
    created: dict[str, tuple[int, str]] = {}
    shared: dict[tuple[str, str], int] = {}
    for kind, time, user, other, *_ in events:
        if kind not in {Kind.CREATE, Kind.SHARE} or time <= max(deleted.get(other, -1), forgotten.get(user, -1)):
            continue
        if kind == Kind.CREATE:
            created[other] = min(created.get(other, (time, user)), (time, user))
        elif time > unshared.get((user, other), -1):
            shared[user, other] = min(shared.get((user, other), time), time)
    return created, shared


def closed_posts(
    mutations: Iterable[Mutation], horizon: int, until: int, *, along_follows: bool = False
) -> tuple[Posts, list[str]]:
    """Count the reach of the posts whose horizon closed.

    Args:
        mutations: Events in any order.
        horizon: Length of the horizon (µs).
        until: End of the data (µs).
        along_follows: Count only sharers that a path of follows connects to the author through earlier sharers.

    Returns:
        The posts, and the ids of their authors' rows.
    """
    if along_follows:
        mutations = list(follow_paths(sorted(mutations, key=lambda m: m.time)))
    created, shared = effective_events(mutations)
    contents = {content: row for row, content in enumerate(created)}
    rows: dict[str, int] = {}
    author = np.array([rows.setdefault(created[name][1], len(rows)) for name in contents], np.int64)
    when = np.array([created[name][0] for name in contents], np.int64)
    sharers: dict[str, int] = {}
    shares = np.array(
        [
            (contents[content], sharers.setdefault(user, len(sharers)), time)
            for (user, content), time in shared.items()
            if content in contents
        ],
        np.int64,
    ).reshape(-1, 3)
    return Posts.count(author, when, *shares.T, horizon=horizon, until=until), list(rows)


def closed_contents(mutations: Iterable[Mutation], horizon: int, until: int) -> list[str]:
    """Return the ids of the contents that `closed_posts` returns, in its order; arguments are the same."""
    created = effective_events(mutations)[0]
    closed = [(time, content) for content, (time, _) in created.items() if time + horizon <= until]
    return [content for _, content in sorted(closed, key=lambda post: post[0])]


def follow_paths(events: Iterable[Mutation]) -> Iterator[Mutation]:
    """Yield the events (in order of time) without shares that did not come along follows.

    A share comes along follows if its user follows the author, or the user of an earlier such share of the content.
    """
    following: dict[str, set[str]] = {}
    reached: dict[str, set[str]] = {}
    for event in events:
        kind, _, user, other, *_ = event
        if kind == Kind.FOLLOW:
            following.setdefault(user, set()).add(other)
        elif kind == Kind.UNFOLLOW:
            following.get(user, set()).discard(other)
        elif kind == Kind.CREATE:
            reached.setdefault(other, {user})
        elif kind == Kind.SHARE:
            reached_users = reached.get(other, set())
            if reached_users.isdisjoint(following.get(user, ())):
                continue
            reached_users.add(user)
        yield event


def build(  # noqa: PLR0913 - the options of `train`
    mutations: Iterable[Mutation],
    config: ModelConfig,
    until: int,
    *,
    snapshots: int = 14,
    held_out: float = 0.2,
    seed: int = 0,
    along_follows: bool = False,
    staleness: bool = False,
    progress: Progress = lambda _line: None,
) -> Dataset:
    """Apply events to a graph up to each snapshot time, and label the snapshots.

    Args:
        mutations: Events in any order.
        config: Configuration of the network.
        until: The cut (µs).
        snapshots: Maximum number of snapshots.
        held_out: Share of the users that are held out.
        seed: Seed of the selection of held-out users.
        along_follows: As for `closed_posts`.
        staleness: Count stale nodes; the graph then applies smaller batches.
        progress: Receives one line per snapshot.

    Raises:
        TrainingError: the data are too small; the message names what is missing.
    """
    events = sorted((m for m in mutations if m.time <= until), key=lambda m: m.time)
    created = creation_times(events)
    if not len(created):
        raise TrainingError("no posts: the events hold no create up to the cut; give files with creates and shares")
    horizon = config.horizon_s * _SECOND
    times = plan(created, until, horizon, snapshots)
    posts, authors = closed_posts(events, horizon, until, along_follows=along_follows)
    labelled: list[TrainingSnapshot] = []
    counted = Staleness(len(events)) if staleness else None
    with TemporaryDirectory(prefix="groundswell-train-") as folder:
        graph = GraphState.open(Path(folder) / "graph", graph_spec(config, retention_s=0, lateness_s=0))
        try:
            done = 0
            for number, time in enumerate((*times.times, until), 1):
                done = _advance(graph, events, done, time, counted)
                moment = datetime.fromtimestamp(time / _SECOND, UTC).strftime("%Y-%m-%d %H:%M")
                progress(f"graph {number} of {len(times.times) + 1}: {moment}, {done:,} of {len(events):,} events")
                if number <= len(times.times):
                    labelled.append(_label(graph, config, posts, authors, time, times.window, held_out, seed))
            dataset = _finish(graph, config, labelled, events, held_out, seed)
            return replace(dataset, stale=counted.per_1000_events) if counted else dataset
        finally:
            graph.close()


def creation_times(events: Iterable[Mutation]) -> Int64s:
    """Return the time of the first create of each content, ascending (µs).

    Creates may be repeated, also as shares that carry an author.
    """
    first: dict[str, int] = {}
    for event in events:
        if event.kind == Kind.CREATE:
            first[event.other] = min(event.time, first.get(event.other, event.time))
    return np.array(sorted(first.values()), np.int64)


def _advance(graph: GraphState, events: list[Mutation], done: int, time: int, counted: Staleness | None) -> int:
    """Apply the events up to a time; return the number of events applied in all."""
    end = done
    while end < len(events) and events[end].time <= time:
        end += 1
    while done < end:
        batch = events[done : min(done + (counted.size(done) if counted else _BATCH), end)]
        graph.apply(batch)
        if counted:
            counted.count(done, len(batch), graph.changes.propagated)
        graph.commit()
        done += len(batch)
    return end


def _label(
    graph: GraphState,
    config: ModelConfig,
    posts: Posts,
    authors: list[str],
    time: int,
    window: int,
    held_out: float,
    seed: int,
) -> TrainingSnapshot:
    """Return the current graph with the labels of the window that follows."""
    from model.training.fitting import TrainingSnapshot

    snapshot = graph.snapshot()
    users = snapshot.ids[USER]
    rows = {user: row for row, user in enumerate(users)}
    row_of = np.array([rows.get(author, -1) for author in authors], np.int64)
    later = posts.between(time, time + window)
    # An author without any event before the snapshot has no row, and no features.
    known = later.of(row_of[later.author])
    target, number = known.labels(len(users), time, window)
    weight = number / (number + 1)
    mask = np.array([not is_held_out(user, held_out, seed) for user in users], np.bool_) & snapshot.live
    return TrainingSnapshot(graph_input(snapshot, config), target, weight, mask, time, window, known)


def _finish(
    graph: GraphState,
    config: ModelConfig,
    labelled: list[TrainingSnapshot],
    events: list[Mutation],
    held_out: float,
    seed: int,
) -> Dataset:
    """Return the data set with the graph at the cut."""
    snapshot = graph.snapshot()
    users = snapshot.ids[USER]
    return Dataset(
        snapshots=labelled,
        final=graph_input(snapshot, config),
        users=users,
        live=snapshot.live,
        held_out=np.array([is_held_out(user, held_out, seed) for user in users], np.bool_),
        warm=snapshot.own[:, config.own.index("cold")] == 0,
        followers=_followers(events, users),
        events=len(events),
        first=events[0].time,
        until=events[-1].time,
    )


def _followers(events: list[Mutation], users: list[str]) -> Int64s:
    """Return the number of followers of each user at the end `[n]`, by the newest event of each pair."""
    live: dict[tuple[str, str], tuple[int, bool]] = {}
    for kind, time, user, other, *_ in events:
        if kind in {Kind.FOLLOW, Kind.UNFOLLOW}:
            # On equal times the removal wins: True is greater than False.
            state = (time, kind == Kind.UNFOLLOW)
            live[user, other] = max(live.get((user, other), state), state)
    rows = {user: row for row, user in enumerate(users)}
    named = [rows[other] for (_, other), (_, gone) in live.items() if not gone and other in rows]
    return np.bincount(np.array(named, np.int64), minlength=len(users))


def evaluate_held_out(
    dataset: Dataset, artifact: Artifact, truth: dict[str, float] | None = None, seed: int = 0
) -> tuple[list[Standing], int, str]:
    """Compare an artifact with the baselines on held-out users.

    Args:
        dataset: Snapshots and the graph at the cut.
        artifact: The artifact that was trained on them.
        truth: True influence by user id; the graph is that at the cut. Without it, the truth is the mean log reach of
            the posts of the newest window, and the graph that of the newest snapshot, which precedes them.
        seed: Seed of LightGBM.

    Returns:
        The standing of each scorer, the number of users, and a description of the truth.

    Raises:
        TrainingError: fewer than two held-out users have a truth.
    """
    from model.training import scorers
    from model.training.baselines import own_features

    config = artifact.config
    if truth is None:
        newest = dataset.snapshots[-1]
        graph, target = newest.graph, newest.target
        rows = np.flatnonzero(dataset.held_out[: len(target)] & np.isfinite(target))
        warm = graph.features[:, config.own.index("cold")] == 0
        followers: Float64s = graph.features[:, config.own.index("followers")].astype(np.float64)
        truth_name = "the mean log reach of their posts after the newest snapshot"
    else:
        graph, warm, followers = dataset.final, dataset.warm, dataset.followers.astype(np.float64)
        target = np.array([truth.get(user, np.nan) for user in dataset.users])
        rows = np.flatnonzero(dataset.held_out & dataset.live & np.isfinite(target))
        truth_name = "their true influence at the cut"
    if len(rows) < 2:
        raise TrainingError("fewer than two held-out users have a label: give a longer stretch of events")
    scored = scorers.score_all(
        scorers.Candidates(graph, rows, followers[rows]),
        scorers.TrainingData(dataset.snapshots, config),
        {
            "followers": scorers.followers(),
            "past mean": scorers.past_mean(),
            "LightGBM": scorers.trees(own_features),
            "GATv2": scorers.trained(artifact),
        },
        [seed],
    )
    scores = {name: by_seed[0] for name, by_seed in scored.runs.items()}
    scores["GATv2 + LightGBM"] = rank_mean([scores["GATv2"], scores["LightGBM"]])
    # Only the first column of the card has an interval.
    by_scorer = standings(scores, target[rows], warm[rows], concordance=False, intervals=("all",))
    return list(by_scorer.values()), len(rows), truth_name
