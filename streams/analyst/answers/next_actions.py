"""Predictions of who shares a post next: an index of posts that is renewed beside the passes, and answers from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from graphstate.types import Int32s, Int64s
from model.analysis.exposures import History
from model.next_action.artifact import NextActionArtifact
from model.next_action.examples import exposed
from model.next_action.features import ACTIVE, features
from model.next_action.timeline import FOREVER, Timeline, live_follows, timeline
from streams.analyst.measures import Measures
from streams.analyst.pace import Rounds
from streams.errors import AnalystError, SettingsError
from streams.messages.headers import rfc3339
from streams.settings.settings import Settings

SECOND_US = 1_000_000
USERS = 100_000
"""Most users that a question may name, and that an answer has."""
STATES = ("exposed", "not_exposed", "shared")


class ShareQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/predict/share`.

    Attributes:
        content: the post.
        users: the users in question; None: all who are exposed and have not shared it.
        limit: the most users of the answer if none are named, the most probable first.
    """

    content: str
    users: Annotated[list[str], Meta(min_length=1, max_length=USERS)] | None = None
    limit: Annotated[int, Meta(ge=1, le=USERS)] = 1_000


class Posts(msgspec.Struct, frozen=True):
    """Posts and shares at the moment of a pass.

    Attributes:
        history: posts and shares in force.
        rows: row of the content of each post, `[p]`.
        ids: content id by row.
        numbers: row of contents by id, as it is now: `ids` has what it was.
    """

    history: History
    rows: Int64s
    ids: list[str]
    numbers: dict[str, int]


@dataclass(frozen=True, eq=False)
class Index:
    """What answers are computed from; nothing of it changes.

    Attributes:
        measures: the pass.
        made: posts, shares and follows of that moment.
        posts: where the posts come from.
        post_of: number of the post of each content, −1 for none.
    """

    measures: Measures
    made: Timeline
    posts: Posts
    post_of: Int32s

    @property
    def at(self) -> int:
        """The moment (µs): after all events of the pass."""
        return self.measures.as_of + 1

    def post(self, content: str) -> int:
        """Return the number of a post.

        Raises:
            AnalystError: there is none.
        """
        row = self.posts.numbers.get(content, -1)
        # A row that was freed since then may belong to another content now.
        known = 0 <= row < len(self.post_of) and self.posts.ids[row] == content
        if not known or self.post_of[row] < 0:
            raise AnalystError("no such content, or one that was deleted or is older than the retention")
        return int(self.post_of[row])


def index(measures: Measures, posts: Posts, memory: int) -> Index:
    """Return the index of a pass.

    Args:
        measures: the pass.
        posts: posts and shares of the same moment.
        memory: how far back features read (µs).
    """
    post_of = np.full(len(posts.ids), -1, np.int32)
    post_of[posts.rows] = np.arange(len(posts.rows), dtype=np.int32)
    follows = live_follows(measures.follows.offsets, measures.follows.targets)
    return Index(measures, timeline(posts.history, follows, memory), posts, post_of)


class NextActions(Rounds[Index]):
    """Keeps an index, from which answers are computed; renewing it takes at most a fifth of the time.

    Args:
        artifact: the model.
        metrics: is given the seconds of each stage.
    """

    def __init__(self, artifact: NextActionArtifact, metrics: Callable[[str, float], None]) -> None:
        super().__init__("next-actions", metrics)
        self.artifact = artifact

    @classmethod
    def of(cls, settings: Settings, metrics: Callable[[str, float], None]) -> NextActions | None:
        """Return the answers of the artifact that the settings name; None if they name none.

        Raises:
            ArtifactError: the artifact cannot be read.
            SettingsError: the artifact reads further back than the retention.
        """
        if not settings.analyst_next_model:
            return None
        artifact = NextActionArtifact.load(Path(settings.analyst_next_model))
        memory, retention = artifact.config.memory_us, settings.retention_s * SECOND_US
        if retention and memory > retention:
            reads = "all of the past" if memory == FOREVER else f"{memory // SECOND_US:,} s back"
            raise SettingsError(
                f"{settings.analyst_next_model} reads {reads}, and GROUNDSWELL_RETENTION_S keeps "
                f"{settings.retention_s:,} s: train with --memory of at most that"
            )
        return cls(artifact, metrics)

    def begin(self, measures: Measures, posts: Posts) -> None:
        """Begin to make an index. Raises the error of one that failed."""
        self._start(lambda seconds: self._index(measures, posts, seconds))

    async def _index(self, measures: Measures, posts: Posts, seconds: dict[str, float]) -> Index:
        begin = perf_counter()
        made = await self._in_thread(index, measures, posts, self.artifact.config.memory_us)
        seconds["next_actions"] = perf_counter() - begin
        return made


def predict(question: ShareQuestion, artifact: NextActionArtifact, known: Index, measures: Measures) -> dict[str, Any]:
    """Return the probability that each exposed user shares a post within the horizon.

    Args:
        question: the question.
        artifact: the model.
        known: the index.
        measures: the newest pass, which decides who is live.

    Raises:
        AnalystError: there is no such post, or no such user.
    """
    post = known.post(question.content)
    if question.users is None:
        reached = exposed(known.made, post, known.at)
        users = reached[measures.live[reached]]
    else:
        users = _rows(question.users, known, measures)
    at = np.full(len(users), known.at)
    values = features(known.made, np.full(len(users), post, np.int32), users, at)
    probability = artifact.probability(values)
    state = _states(known.made, post, users, values[:, ACTIVE])
    order: Any = range(len(users))
    if question.users is None:
        order = np.argsort(-probability, kind="stable")[: question.limit].tolist()
    ids = known.measures.ids
    return {
        "content": question.content,
        "predictions": [
            {
                "user": ids[users[place]],
                "probability": float(probability[place]) if state[place] == 0 else None,
                "state": STATES[state[place]],
            }
            for place in order
        ],
        "candidates": len(users),
        "horizon_s": artifact.config.horizon_us // SECOND_US,
        "model": artifact.version,
        "as_of": rfc3339(max(known.measures.as_of, 0)),
    }


def _rows(users: list[str], known: Index, measures: Measures) -> Int32s:
    rows = [measures.row(user) for user in users]
    for user, row in zip(users, rows, strict=True):
        if row is None or row >= known.made.rows:
            raise AnalystError(f"no such user, or a forgotten one: {user}; leave it out")
    return np.array(rows, np.int32)


def _states(made: Timeline, post: int, users: Int32s, active: Any) -> list[int]:
    """Return the place in `STATES` of each user."""
    done = np.zeros(made.rows, np.bool_)
    done[made.post_user[made.post_offsets[post] : made.post_offsets[post + 1]]] = True
    states: list[int] = np.where(done[users], 2, np.where(active > 0, 0, 1)).tolist()
    return states
