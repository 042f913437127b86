"""Which scores and alerts of a shard are published, and what was published last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphstate.memory.columns import union
from graphstate.state import GraphState
from graphstate.storage.row_layouts import NEVER
from graphstate.types import USER
from model.engine.cpu import Backend
from streams.messages.outputs import Alert, Score, new_score
from streams.shard.alert_rule import AlertRule, Emerging, alert_id, emerging
from streams.shard.percentiles import PercentileHistogram
from streams.shard.published_scores import PublishedScores

REPUBLISH_ROWS_MAX = 8_192
"""Maximum users republished per step; bounds the delay of new events."""


@dataclass(frozen=True)
class Publishing:
    """Minimum change of a score since it was last published.

    Attributes:
        reach: Share of the published reach.
        percentile: Percentile points.
    """

    reach: float = 0.02
    percentile: float = 0.5


def reach_of(score: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the reach (people) of scores (mean log reach), never below 0."""
    people: NDArray[np.float64] = np.expm1(np.maximum(score.astype(np.float64), 0.0))
    return people


class ScorePublisher:
    """Current and published scores of one shard.

    Args:
        graph: Graph of the shard.
        engine: Engine that holds the current scores.
        rule: Alert rule.
        publishing: Thresholds.

    Attributes:
        published: Last published scores and alerts.
        percentiles: Current percentiles.
        republish_pending: Whether some live users have no valid published score; the next steps publish theirs.
        target: The score topic published to, as `streams/worker/processing/score_topic.py` writes it; committed.
    """

    def __init__(self, graph: GraphState, engine: Backend, rule: AlertRule, publishing: Publishing) -> None:
        self._graph, self.engine = graph, engine
        self._rule, self._publishing = rule, publishing
        self._picks: list[Emerging] = []
        self.published = PublishedScores()
        self.percentiles = PercentileHistogram()
        self.republish_pending = False
        self.target = graph.meta.get(b"scores", b"").decode()

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
        self.published.restore(self._graph.outputs(), scores=scores)

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

    def request_republish(self, rows: NDArray[np.int64] | None = None) -> None:
        """Mark scores as not published; the next steps that are not silent publish them.

        Args:
            rows: User rows; None for all users.
        """
        self.ensure_capacity()
        rows = np.arange(self._user_rows()) if rows is None else rows
        rows = rows[self._graph.live_users(rows)]
        self.published.invalidate(rows)
        self.republish_pending |= bool(len(rows))

    def republish_moved(self) -> None:
        """Mark published scores that moved as not published, after the scores of all users may have moved."""
        self.ensure_capacity()
        rows = np.flatnonzero(self._graph.live_users() & ~np.isnan(self.published.reach[: self._user_rows()]))
        self.request_republish(rows[self._moved(rows)])

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
            self.published.alerted[gone] = NEVER
            rows = union([rows, gone])
        self.percentiles.place(rows, self.engine.score[rows], self._graph.live_users(rows))

    def current(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the current reach `[k]` and percentile `[k]` of user rows `[k]`."""
        return reach_of(self.engine.score[rows]), self.percentiles.percentile(rows)

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
            self.republish_pending = len(missing) > REPUBLISH_ROWS_MAX
            rows = union([rows, missing[:REPUBLISH_ROWS_MAX]])
        rows = rows[self._graph.live_users(rows)]
        rows = rows[self._moved(rows)]
        reach, percentile = self.current(rows)
        published.reach[rows], published.percentile[rows] = reach, percentile
        published.dirty_rows.update(rows.tolist())
        ids, as_of = self._graph.users.ids, self._graph.as_of(rows).tolist()
        users = map(ids.__getitem__, rows.tolist())
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

    def begin(self) -> None:
        """Begin a step, without alerts."""
        self._picks = []

    def run_alert_rule(self, as_of: int) -> None:
        """Run the alert rule at a boundary of event time (µs), when all earlier events of the step are applied."""
        self.ensure_capacity()
        for pick in emerging(self._graph, self._rule, as_of, self.published.alerted):
            self.published.alerted[pick.row] = as_of
            self.published.dirty_rows.add(pick.row)
            self._picks.append(pick)

    def alerts(self) -> list[Alert]:
        """Return the alerts of the step, with the current scores of their users; those no longer live get none."""
        return [self._alert(pick) for pick in self._picks if self._graph.users.live(pick.row)]

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
        )

    def restore_alerts(self, alerted: Mapping[str, int]) -> None:
        """Replace the times of all users' last alerts.

        Args:
            alerted: Time of the last alert (µs) by user id; other users have none.
        """
        self.ensure_capacity()
        users = self._graph.users
        times = np.full(len(self.published.alerted), NEVER, np.int64)
        for user, time in alerted.items():
            row = users.index.get(user)
            if row is not None and users.live(row):
                times[row] = time
        self.published.set_alerts(times)
