"""Predictions that are kept until the horizon of their post has passed, and the newest closed posts with their reach.

A create notes the author's score at the beginning of the micro-batch that applies it. At the first tick after the
horizon the post is closed: the note gets the post's reach. Of the closed posts only the newest are kept. All of it is
part of the state's WriteBatch, in `meta`; a row names author and content by row number and hash, never by id.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphstate.memory.node_tables import CREATED, LQ_SUM, SHARERS
from graphstate.state import GraphState
from graphstate.types import CREATED as CREATED_RELATION
from graphstate.types import Fact, Int64s, Kind, source_hash
from model.evaluation.live_figures import POST, LivePosts
from streams.messages.packs.mutation_packs import Record

PREFIX = b"post/"
_KEY = Struct(">QIQ")
"""Time of the create (µs), author's row, hash of the content's id."""
_VALUE = Struct("<QffiqiiI")
"""The other fields of `POST` from `model` on, `posts` before `reach`; then reach (−1: open) and content row + 1."""
OPEN_MAX = 64
"""Maximum number of open posts per closed post that is kept; beyond it, half are left out, by hash."""
_SECOND = 1_000_000
_CREATE = int(Kind.CREATE)
_RECHECK = frozenset(map(int, (Kind.DELETE, Kind.FORGET, Fact.UNAUTHORED)))
"""Mutations after which a closed post may no longer be in force."""
_NOTED = np.isin(np.arange(256), [_CREATE, *_RECHECK])
"""Whether `predict` reads a kind of mutation, `[256]`."""
_ROW = np.dtype([*POST.descr, ("author", "<i8"), ("row", "<i8")])
"""A closed post, its author's row and its content's row; −1: the content's reach cannot change any more."""

Key = tuple[int, int, int]


class Note(NamedTuple):
    """What is noted before a post; the fields are those of `POST`."""

    model: int
    score: float
    people: float
    posts: int
    log_reach: int
    sharers: int


class Prediction(NamedTuple):
    """A note whose author may have no row yet."""

    time: int
    author: str
    content: int
    note: Note


class ClosedPosts:
    """Open and closed posts of one shard's authors.

    Args:
        graph: Graph of the shard.
        limit: Number of closed posts that are kept; 0 switches the class off.
        boundary_us: Event time between two calls of `close` at most, if events arrive (µs).

    Attributes:
        left_out: Number of open posts that were left out because there were too many, since the shard was opened.
    """

    def __init__(self, graph: GraphState, limit: int, boundary_us: int) -> None:
        self._graph, self._limit, self._boundary_us = graph, limit, boundary_us
        spec = graph.spec
        self._horizon = spec.horizon_s * _SECOND
        self._evicted_after = spec.kept_us
        self._open: dict[Key, Note] = {}
        self._times: list[Key] = []
        self._closed: NDArray[Any] = np.zeros(0, _ROW)
        self._predictions: list[Prediction] = []
        self._recheck = False
        self._dirty: dict[Key, bytes | None] = {}
        self.left_out = 0

    @property
    def closed(self) -> LivePosts:
        """The newest closed posts, in order of time."""
        closed: LivePosts = np.zeros(len(self._closed), POST)
        for name in POST.names or ():
            closed[name] = self._closed[name]
        return closed

    @property
    def authors(self) -> Int64s:
        """The author's row of each of `closed`."""
        rows: Int64s = self._closed["author"].copy()
        return rows

    @property
    def open(self) -> int:
        """Number of open posts."""
        return len(self._open)

    def restore(self) -> None:
        """Load the committed posts; those beyond the limit are deleted with the next commit."""
        closed = []
        for key, value in self._graph.meta.items():
            if not key.startswith(PREFIX):
                continue
            place: Key = _KEY.unpack(key[len(PREFIX) :])
            model, score, people, posts, log_reach, sharers, reach, row = _VALUE.unpack(value)
            if reach < 0:
                self._open[place] = Note(model, score, people, posts, log_reach, sharers)
            else:
                time, author, content = place
                closed.append((time, content, model, score, people, reach, posts, log_reach, sharers, author, row - 1))
        self._closed = _in_order(np.array(closed, _ROW))
        self._keep(np.arange(len(closed)) >= len(closed) - self._limit)
        if not self._limit:
            self._dirty |= dict.fromkeys(self._open)
            self._open = {}
        self._times = list(self._open)
        heapq.heapify(self._times)

    # A step: predict, close at boundaries, finish, write

    def predict(self, records: Iterable[Record], note_of: Callable[[str], Note] | None) -> None:
        """Take the notes of the creates of a step, before it is applied.

        Args:
            records: Records of the step.
            note_of: Returns the note of an author in the present state; None if the scores are out of date, so that
                the posts of this step have no prediction.
        """
        self._predictions = []
        if not self._limit:
            return
        tick, owns = self._graph.tick, self._graph.users.owns
        for record in records:
            chosen = np.flatnonzero(_NOTED[record.columns.kind])
            for mutation in record.columns.select(chosen).mutations() if len(chosen) else ():
                kind = mutation[0]
                if kind == _CREATE:
                    _, time, author, content, _, _ = mutation
                    if time < tick:
                        # The state may hold what came after the post; and an earlier claim may replace one in force.
                        self._recheck = True
                    elif note_of is not None and owns(author):
                        self._predictions.append(Prediction(time, author, source_hash(content), note_of(author)))
                elif kind in _RECHECK:
                    self._recheck = True

    def _note(self) -> None:
        """Keep the notes that `predict` took; the creates are applied by now, so their authors have rows."""
        users = self._graph.users
        for time, author, content, note in self._predictions:
            row = users.index.get(author)
            if row is None or time <= users.forget_at_cells[row]:
                continue
            key = time, row, content
            if key not in self._open and key not in self._dirty and not self._is_closed(key):
                self._open[key] = note
                heapq.heappush(self._times, key)
                self._dirty[key] = _packed(note, -1, -1)
        self._predictions = []
        if len(self._open) > OPEN_MAX * self._limit:
            self._leave_out()

    def note_of(self, row: int | None, model: int, score: float, people: float) -> Note:
        """Return the note of an author, before a step; all counters are up to date then.

        Args:
            row: The author's row; None for a new user.
            model: `model_number` of the artifact.
            score: Its score (mean log reach).
            people: Its reach as published (persons).
        """
        if row is None:
            return Note(model, score, people, 0, 0, 0)
        counts = self._graph.users.counts[row]
        return Note(model, score, people, int(counts[CREATED]), int(counts[LQ_SUM]), int(counts[SHARERS]))

    def finish(self) -> None:
        """Finish a step after `GraphState.refresh`: note, drop what is void, close."""
        if not self._limit:
            return
        self._note()
        self._drop_void()
        self.close()

    def close(self) -> None:
        """Close the posts whose horizon ended by the last tick, and update the reach of closed ones.

        All mutations so far must be counted: after `GraphState.refresh`, or at a boundary.
        """
        if not self._limit:
            return
        self._update_reach()
        graph, closing = self._graph, []
        until = graph.tick - self._horizon
        while self._times and self._times[0][0] <= until:
            key = heapq.heappop(self._times)
            note = self._open.pop(key, None)
            if note is None:
                continue
            row = self._content_row(key)
            self._dirty[key] = None
            if row is not None:
                model, score, people, posts, log_reach, sharers = note
                reach = graph.contents.reach_cells[row]
                time, author, content = key
                closing.append((time, content, model, score, people, reach, posts, log_reach, sharers, author, row))
        if closing:
            self._add(np.array(closing, _ROW))
        self._freeze()

    def write(self) -> None:
        """Stage the changed rows for the step's WriteBatch."""
        for key, value in self._dirty.items():
            self._graph.store.write("meta", PREFIX + _KEY.pack(*key), value)
        self._dirty = {}

    # Details

    def _is_closed(self, key: Key) -> bool:
        time, author, content = key
        closed = self._closed
        same = (closed["created_at"] == time) & (closed["content"] == content) & (closed["author"] == author)
        return bool(same.any())

    def _content_row(self, key: Key) -> int | None:
        """Return the row of an author's content; None if its create is not in force."""
        time, author, content = key
        sources, times = self._graph.windows.in_edges(CREATED_RELATION, author)
        rows = sources[(times == time) & (self._graph.contents.hash[sources] == np.uint64(content))]
        return int(rows[0]) if len(rows) else None

    def _drop_void(self) -> None:
        """Drop posts that were deleted, and all posts of forgotten authors."""
        if not self._recheck:
            return
        self._recheck = False
        graph, closed = self._graph, self._closed
        forget_at = graph.users.forget_at_cells
        for key in [key for key in self._open if key[0] <= forget_at[key[1]]]:
            del self._open[key]
            self._dirty[key] = None
        keep = closed["created_at"] > graph.users.forget_at[closed["author"]]
        evictable = graph.clock - self._evicted_after if self._evicted_after else -1
        for number in np.flatnonzero(keep & (closed["row"] >= 0)).tolist():
            key = _key(closed[number])
            if self._content_row(key) is None:
                if key[0] <= evictable:
                    closed["row"][number] = -1
                    self._dirty[key] = _packed_row(closed[number])
                else:
                    keep[number] = False
        self._keep(keep)

    def _update_reach(self) -> None:
        """Update the reach of closed posts whose content is in the graph: shares may arrive late or be undone."""
        rows = self._closed["row"]
        inside = rows >= 0
        reach = np.where(inside, self._graph.contents.reach[np.maximum(rows, 0)], self._closed["reach"])
        changed = np.flatnonzero(reach != self._closed["reach"]).tolist()
        self._closed["reach"] = reach
        for number in changed:
            self._dirty[_key(self._closed[number])] = _packed_row(self._closed[number])

    def _add(self, closing: NDArray[Any]) -> None:
        """Add closed posts, and drop the oldest beyond the limit."""
        for post in closing:
            self._dirty[_key(post)] = _packed_row(post)
        self._closed = _in_order(np.concatenate([self._closed, closing]))
        keep = np.arange(len(self._closed)) >= len(self._closed) - self._limit
        self._keep(keep)

    def _keep(self, keep: NDArray[np.bool_]) -> None:
        if keep.all():
            return
        for post in self._closed[~keep]:
            self._dirty[_key(post)] = None
        self._closed = self._closed[keep]

    def _freeze(self) -> None:
        """Detach posts from their content before its row may be evicted, which takes until the next boundary."""
        if not self._evicted_after:
            return
        before = self._graph.clock + self._boundary_us - self._evicted_after
        for number in np.flatnonzero((self._closed["row"] >= 0) & (self._closed["created_at"] <= before)).tolist():
            self._closed["row"][number] = -1
            self._dirty[_key(self._closed[number])] = _packed_row(self._closed[number])

    def _leave_out(self) -> None:
        """Leave out the half of the open posts with the larger hashes: an even sample of posts remains."""
        middle = int(np.median(np.array([key[2] for key in self._open], np.uint64).astype(np.float64)))
        for key in [key for key in self._open if key[2] > middle]:
            del self._open[key]
            self._dirty[key] = None
            self.left_out += 1
        self._times = list(self._open)
        heapq.heapify(self._times)


def _in_order(posts: NDArray[Any]) -> NDArray[Any]:
    return posts[np.lexsort((posts["content"], posts["created_at"]))]


def _key(post: Any) -> Key:
    return int(post["created_at"]), int(post["author"]), int(post["content"])


def _packed(note: Note, reach: int, row: int) -> bytes:
    return _VALUE.pack(*note, reach, row + 1)


def _packed_row(post: Any) -> bytes:
    note = Note(*(post[name].item() for name in Note._fields))
    return _packed(note, int(post["reach"]), int(post["row"]))
