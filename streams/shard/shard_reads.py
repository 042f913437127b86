"""Reads of one shard between two steps: scores, the top list, one user, sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphstate.types import TYPES
from streams.shard import user_reads

if TYPE_CHECKING:
    from streams.shard.shard import Shard


class ShardReads:
    """Answers about the current state of a shard.

    Args:
        shard: The shard; reads run on its thread, between two steps.
    """

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    def scores(self) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Return the columns of all live users' scores, sorted by id: id, reach, percentile, as-of time (µs)."""
        graph = self._shard.graph
        names = graph.users.ids
        rows = np.array(sorted(np.flatnonzero(graph.live_users()).tolist(), key=names.__getitem__), np.int64)
        reach, percentile = self._shard.publisher.current(rows)
        return [names[row] for row in rows], reach, percentile, graph.as_of(rows)

    def top(self, n: int) -> list[dict[str, Any]]:
        """Return the scores of the n users with the largest reach, largest first, as `user` without the features."""
        live = self._shard.graph.live_users()
        score = np.where(live, self._shard.engine.score[: len(live)], -np.inf)
        n = min(n, int(live.sum()))
        if not n:
            return []
        rows = np.argpartition(-score, n - 1)[:n]
        rows = rows[np.argsort(-score[rows], kind="stable")]
        return [self.score(int(row)) for row in rows]

    def user(self, user_id: str) -> dict[str, Any] | None:
        """Return a user's `score`, own features and figures (`user_reads.figures`); None if not live here."""
        users = self._shard.graph.users
        row = users.index.get(user_id)
        # A user of another shard has a row, too, if an edge or an event here names it.
        if row is None or not users.owned[row] or not users.live(row):
            return None
        features = dict(zip(self._shard.artifact.config.own, users.own[row].tolist(), strict=True))
        return {**self.score(row), "features": features, **user_reads.figures(self._shard, row)}

    def published(self, key: str | tuple[str, str]) -> bool:
        """Return whether a user, or a user on a topic, has a score: a topic and a user name the latter."""
        if isinstance(key, str):
            row = self._shard.graph.users.index.get(key)
            return row is not None and bool(self._shard.graph.live_users(np.array([row]))[0])
        topic, user = key
        return user_reads.on_topic(self._shard, user, topic) is not None

    def score(self, row: int) -> dict[str, Any]:
        """Return the score of a row: user, model, reach, percentile, as_of in µs."""
        graph = self._shard.graph
        reach, percentile = self._shard.publisher.current(np.array([row]))
        return {
            "user": graph.users.ids[row],
            "model": self._shard.artifact.version,
            "reach": float(reach[0]),
            "percentile": float(percentile[0]),
            "calibrated": self._shard.publisher.calibration.calibrated,
            "as_of": int(graph.as_of(np.array([row]))[0]),
        }

    def sizes(self) -> dict[str, int]:
        """Return the rows per node type (`TYPE_rows`), and RocksDB's sizes (bytes)."""
        nodes = {f"{name}_rows": self._shard.view.rows(kind) for kind, name in enumerate(TYPES)}
        return {**nodes, **self._shard.graph.store.sizes()}
