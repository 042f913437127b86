"""Which scores and alerts of a shard are published, and what was published last."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graphstate.memory.columns import union
from graphstate.state import GraphState
from graphstate.storage.row_layouts import NEVER
from graphstate.types import USER
from model.engine.cpu import Backend
from model.evaluation.calibration import IDENTITY, CalibrationMap
from streams.messages.outputs import Alert, AlertOutcome, Score, new_score
from streams.shard.alerts.alert_rule import Emerging, alert_id
from streams.shard.alerts.outcomes import Ended
from streams.shard.scores.percentiles import PercentileHistogram

REPUBLISH_ROWS = 1_024
"""Users republished with a step, beside twice as many as it scores; few, so that a small step stays short."""
REPUBLISH_ROWS_MAX = 8_192
"""Maximum users republished with a step; bounds the delay of new events."""


@dataclass(frozen=True)
class Publishing:
    """Minimum change of a score since it was last published.

    Attributes:
        reach: Share of the published reach.
        percentile: Percentile points.
    """

    reach: float = 0.02
    percentile: float = 0.5


@njit(cache=True, nogil=True)
def _update(
    rows: NDArray[np.int64], reach: NDArray[np.float64], percentile: NDArray[np.float64],
    published_reach: NDArray[np.float32], published_percentile: NDArray[np.float32], least_reach: np.float32,
    least_percentile: float, keep: NDArray[np.int64],
) -> int:  # fmt: skip
    """Note as published, and list in `keep`, the positions in `rows` whose score moved enough; return their number."""
    n, floor = 0, np.float32(1e-3)
    for i in range(len(rows)):
        last, last_percentile = published_reach[rows[i]], published_percentile[rows[i]]
        limit = least_reach * max(last, floor)
        # What is not a number was never published, and counts as moved.
        if not (abs(reach[i] - last) <= limit and abs(percentile[i] - last_percentile) <= least_percentile):
            published_reach[rows[i]], published_percentile[rows[i]] = reach[i], percentile[i]
            keep[n] = i
            n += 1
    return n


def reach_of(score: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the reach (people) of scores (mean log reach), never below 0."""
    people: NDArray[np.float64] = np.expm1(np.maximum(score.astype(np.float64), 0.0))
    return people


TOPICS_MOVE = 0.1
"""Least change of a user's log reach with which its topics are published again."""


class TopicTarget:
    """The topic of scores by user and topic that a shard publishes to.

    Attributes:
        target: As `ScorePublisher.target`.
        request_republish: Lets the next steps publish every score again, with the topics of its user.
    """

    def __init__(self, target: str, request_republish: Callable[[], None]) -> None:
        self.target, self.request_republish = target, request_republish
        # Log reach with which the topics of each user row were published; NaN: unknown, as after a start.
        self._log_reach: NDArray[np.float32] = np.full(256, np.nan, np.float32)

    def moved(self, rows: NDArray[np.int64], reach: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the user rows `[k]` whose topics are due with their reach `[k]`, and note it as published."""
        if len(rows) and rows.max() >= len(self._log_reach):
            grown = np.full(2 * (int(rows.max()) + 1), np.nan, np.float32)
            grown[: len(self._log_reach)] = self._log_reach
            self._log_reach = grown
        log_reach = np.log1p(reach)
        # What is unknown counts as moved.
        due = ~(np.abs(log_reach - self._log_reach[rows]) <= TOPICS_MOVE)
        self._log_reach[rows[due]] = log_reach[due]
        moved: NDArray[np.int64] = rows[due]
        return moved

    def invalidate(self, rows: NDArray[np.int64]) -> None:
        """Let the topics of these user rows be published with their next score."""
        self._log_reach[rows[rows < len(self._log_reach)]] = np.nan


class ScorePublisher:
    """Current and published scores of one shard.

    Args:
        graph: Graph of the shard.
        engine: Engine that holds the current scores.
        publishing: Thresholds.

    Attributes:
        published: Last published scores and alerts.
        percentiles: Current percentiles.
        republish_pending: Whether some live users have no valid published score; the next steps publish theirs.
        calibration: Map from scores to persons.
        target: The score topic published to, as `streams/worker/processing/score_topic.py` writes it; committed.
        by_topic: The topic of scores by user and topic; committed.
        last_rows: The user rows whose scores `publish` returned last, ascending.
    """

    def __init__(self, graph: GraphState, engine: Backend, publishing: Publishing) -> None:
        self._graph, self.engine = graph, engine
        self._publishing = publishing
        self.published = graph.store.registers.published
        none, columns = np.zeros(0), (self.published.reach, self.published.percentile)
        _update(np.zeros(0, np.int64), none, none, *columns, np.float32(0), 0.0, np.zeros(0, np.int64))  # compiles it
        self.percentiles = PercentileHistogram()
        self.republish_pending = False
        self.calibration = IDENTITY
        self.target = graph.meta.get(b"scores", b"").decode()
        self.by_topic = TopicTarget(graph.meta.get(b"topics", b"").decode(), self.request_republish)
        self.last_rows = np.zeros(0, np.int64)

    def _user_rows(self) -> int:
        return int(self._graph.users.rows)

    def ensure_capacity(self) -> None:
        """Grow the columns of published scores to the graph's user rows."""
        self.published.ensure_capacity(self._user_rows())

    def restore(self, *, scores: bool) -> None:
        """Load what was committed as published.

        Args:
            scores: Whether the committed scores are those of the artifact in use; otherwise only alerts count.
        """
        self.ensure_capacity()
        if not scores:
            self.published.invalidate_all()

    def check_published(self) -> None:
        """Set `republish_pending` by whether a live user has no valid published score."""
        live = self._graph.live_users()
        self.republish_pending = bool(np.isnan(self.published.reach[: len(live)][live]).any())

    def replace_engine(self, engine: Backend) -> None:
        """Take the scores of another engine, which has computed all users, and republish all of them."""
        self.engine, self.percentiles = engine, PercentileHistogram()
        users = self._graph.own_rows()[USER]
        self.percentiles.place(users, engine.score[users], self._graph.live_users(users))
        self.request_republish()

    def calibrate(self, calibration: CalibrationMap) -> None:
        """Publish reach by another map from now on: the next steps publish all users again."""
        if calibration != self.calibration:
            self.calibration = calibration
            self.request_republish()

    def request_republish(self, rows: NDArray[np.int64] | None = None, *, topics: bool = True) -> None:
        """Mark scores as not published; the next steps that are not silent publish them.

        Args:
            rows: User rows; None for all users.
            topics: Whether those by topic are published with them in any case.
        """
        self.ensure_capacity()
        rows = np.arange(self._user_rows()) if rows is None else rows
        rows = rows[self._graph.live_users(rows)]
        self.published.invalidate(rows)
        if topics:
            self.by_topic.invalidate(rows)
        self.republish_pending |= bool(len(rows))

    def republish_moved(self, rows: NDArray[np.int64]) -> None:
        """Mark the published scores of user rows `[k]` that moved by more than a threshold as not published."""
        self.ensure_capacity()
        rows = rows[~np.isnan(self.published.reach[rows])]
        rows = rows[self._graph.live_users(rows)]
        self.request_republish(rows[self._moved(rows)], topics=False)

    def _moved(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some user rows `[k]` moved by more than a threshold since they were published."""
        reach, percentile = self.current(rows)
        last_reach, last_percentile = self.published.reach[rows], self.published.percentile[rows]
        unchanged = np.abs(reach - last_reach) <= self._publishing.reach * np.maximum(last_reach, 1e-3)
        unchanged &= np.abs(percentile - last_percentile) <= self._publishing.percentile
        return ~unchanged

    def update_percentiles(self, rows: NDArray[np.int64], gone: NDArray[np.int64]) -> None:
        """Replace the scores of rows in the percentiles, and remove users that are no longer live.

        Args:
            rows: User rows with new scores.
            gone: User rows that are no longer live.
        """
        if len(gone):
            self.ensure_capacity()
            self.published.invalidate(gone)
            self.by_topic.invalidate(gone)
            self.published.alerted[gone] = NEVER
            rows = union([rows, gone])
        self.percentiles.place(rows, self.engine.score[rows], self._graph.live_users(rows))

    def current(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the current reach `[k]` and percentile `[k]` of user rows `[k]`."""
        return self.calibration.people(self.engine.score[rows]), self.percentiles.percentile(rows)

    def percentile_of(self, reach: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the percentile `[k]` that users with these reaches `[k]` would have."""
        return self.percentiles.rank(self.calibration.score(reach))

    def publish(self, rows: NDArray[np.int64]) -> list[Score]:
        """Return the scores to publish, and note them as published.

        Args:
            rows: User rows with new scores; users to be republished are added.
        """
        self.ensure_capacity()
        published = self.published
        if self.republish_pending:
            invalid = np.isnan(published.reach[: self._user_rows()])
            missing = np.flatnonzero(invalid & self._graph.live_users())
            most = min(REPUBLISH_ROWS + 2 * len(rows), REPUBLISH_ROWS_MAX)
            self.republish_pending = len(missing) > most
            rows = union([rows, missing[:most]])
        rows = rows[self._graph.live_users(rows)]
        reach, percentile = self.current(rows)
        keep = np.empty(len(rows), np.int64)
        thresholds = np.float32(self._publishing.reach), self._publishing.percentile
        keep = keep[: _update(rows, reach, percentile, published.reach, published.percentile, *thresholds, keep)]
        rows, reach, percentile = rows[keep], reach[keep], percentile[keep]
        self.last_rows = rows
        listed = rows.tolist()
        published.mark(rows)
        ids, as_of = self._graph.users.ids, self._graph.as_of(rows).tolist()
        users = map(ids.__getitem__, listed)
        return list(map(new_score, zip(users, reach.tolist(), percentile.tolist(), as_of, strict=True)))

    @property
    def interrupted(self) -> bool:
        """Whether the previous publisher of this state did not stop cleanly: some of its outputs may still arrive."""
        return self._graph.meta.get(b"speaking") == b"1"

    def mark_publishing(self, *, publishing: bool) -> None:
        """Store at once that outputs of this state are published from now on, or that all of them were acknowledged."""
        self._graph.store.write("meta", b"speaking", b"%d" % publishing)
        self._graph.store.commit()

    # Alerts

    def alerts(self, picks: Iterable[Emerging]) -> list[Alert]:
        """Return the alerts of the step, with the current scores of their users; those no longer live get none."""
        alerts = []
        for pick in picks:
            if self._graph.users.live(pick.row):
                self.ensure_capacity()
                self.published.alerted[pick.row] = pick.as_of
                self.published.mark(np.array([pick.row]))
                alerts.append(self._alert(pick))
        return alerts

    def outcomes(self, ended: Iterable[Ended]) -> list[AlertOutcome]:
        """Return the outcomes of alerts; those of users without an id get none."""
        ids = self._graph.users.ids
        return [
            AlertOutcome(
                alert_id(ids[end.row], end.alert_as_of),
                ids[end.row],
                end.outcome,
                end.as_of,
                (end.as_of - end.alert_as_of) / 1e6,
            )
            for end in ended
            if ids[end.row]
        ]

    def _alert(self, pick: Emerging) -> Alert:
        reach, percentile = self.current(np.array([pick.row]))
        user = self._graph.users.ids[pick.row]
        return Alert(
            alert=alert_id(user, pick.as_of),
            user=user,
            as_of=pick.as_of,
            velocity=pick.velocity,
            level=pick.level,
            reach=float(reach[0]),
            percentile=float(percentile[0]),
            new_sharers=pick.new_sharers,
            content=pick.content,
            rising_s=pick.rising_s,
            sharers=tuple(name for row in pick.sharers if (name := self._graph.users.ids[row])),
            topics=tuple(pick.topics),
        )
