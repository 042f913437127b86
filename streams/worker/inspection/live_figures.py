"""Live figures of a worker: closed posts of its shards, and of other workers' shards by the models topic.

open shards ──► closed posts ──► models topic ──► other workers, `model show`, the trainer
└──► figures over the newest of all shards ──► metrics, page, API
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Protocol

from model.evaluation import live_figures
from model.evaluation.live_figures import LivePosts
from streams.messages.closed_posts import decode, encode
from streams.shard.shard import Shard
from streams.telemetry.metrics import Metrics
from streams.worker.lifecycle import WorkerPart

log = logging.getLogger(__name__)

EVERY_S = 2.0
"""Interval of the figures."""
SEND_S = 120.0
"""Minimum interval between two messages with the posts of a shard: the topic holds each until it is compacted."""
SEND_WAIT_S = 5.0


class Host(Protocol):
    """The open shards (a `ShardHost`)."""

    async def read(self, query: Callable[[Shard], Any]) -> list[Any]:
        """Return the result of a query for every open shard."""
        ...


class LiveFigures(WorkerPart):
    """Computes the live figures and shares the posts that they are computed from.

    Args:
        host: The open shards.
        metrics: The worker's metrics.
        limit: Number of closed posts that count; 0 switches everything off.
        received: Returns what the models topic holds, encoded, by shard.
        send: Sends the encoded posts of a shard to the models topic.

    Attributes:
        figures: The newest figures, as `model.evaluation.live_figures.figures` returns them.
    """

    def __init__(
        self,
        host: Host,
        metrics: Metrics,
        limit: int,
        received: Callable[[], Mapping[int, bytes]],
        send: Callable[[int, bytes], Awaitable[None]],
    ) -> None:
        self._host, self._metrics, self._limit = host, metrics, limit
        self._received, self._send = received, send
        self._due_s = 0.0
        self._sent: dict[int, tuple[float, bytes]] = {}
        self.figures: dict[str, Any] = live_figures.figures(live_figures.newest([], 0))

    async def tick(self) -> None:
        """Compute the figures and send changed posts, if it is time."""
        if not self._limit or monotonic() < self._due_s:
            return
        self._due_s = monotonic() + EVERY_S
        shards = await self._host.read(lambda shard: (shard.shard_id, shard.posts.closed, shard.posts.open))
        own = {shard: posts for shard, posts, _ in shards}
        others = [decode(value) for shard, value in self._received().items() if shard not in own]
        self.update(live_figures.newest([*own.values(), *others], self._limit), sum(opened for *_, opened in shards))
        await self._share(own)

    def update(self, posts: LivePosts, opened: int) -> None:
        """Compute the figures of closed posts and set the metrics; `opened` counts the open posts of this worker."""
        self.figures = figures = live_figures.figures(posts)
        metrics = self._metrics
        metrics.live_spearman.clear()
        for scorer, by_authors in figures["spearman"].items():
            for authors, value in by_authors.items():
                if value is not None:
                    metrics.live_spearman.labels(scorer, authors).set(value)
        metrics.live_posts.labels("closed").set(figures["posts"])
        metrics.live_posts.labels("open").set(opened)
        if figures["calibration"] is not None:
            metrics.live_calibration.set(figures["calibration"])

    async def _share(self, own: Mapping[int, LivePosts]) -> None:
        """Send the posts of shards that changed since they were sent."""
        for shard in self._sent.keys() - own.keys():
            del self._sent[shard]
        for shard, posts in own.items():
            sent_s, sent = self._sent.get(shard, (-SEND_S, b""))
            if monotonic() - sent_s < SEND_S:
                continue
            value = encode(posts)
            if value == sent or (not sent and not len(posts)):
                continue
            try:
                async with asyncio.timeout(SEND_WAIT_S):
                    await self._send(shard, value)
            except Exception as error:  # noqa: BLE001 - any failure is retried: the figures must not stop a worker
                log.warning("closed_posts_not_sent", extra={"shard": shard, "error": str(error)})
                value = b""
            self._sent[shard] = monotonic(), value
