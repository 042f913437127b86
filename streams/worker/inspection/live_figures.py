"""Live figures of a worker: closed posts of its shards, and of other workers' shards by the models topic.

    open shards ──► closed posts ──► models topic ──► other workers, `model show`, the trainer
                         │
        newest of all shards ──► figures ──► metrics, page, API
                         └─────► map from scores to persons ──► models topic ──► every shard

The worker of shard 0 fits the map; a new one is sent only if it moves reach by more than `STEP`, as every user's score
is then published again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Protocol

import msgspec

from model.evaluation import live_figures
from model.evaluation.calibration import CalibrationMap, fit
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


FIT_S = 10.0
"""Minimum interval between two maps."""
STEP = 0.1
"""Smallest change of reach (log) at which the map is replaced."""
LEADER = 0
"""The shard whose worker fits the map."""
ACTIONS = ("waiting", "refused", "accepted", "restored", "failed")
"""What the trainer may decide."""
POSTS, MAP = "posts", "map"
"""First parts of the keys on the models topic."""


class Topic(Protocol):
    """What the models topic holds."""

    @property
    def posts(self) -> Mapping[int, bytes]:
        """Encoded closed posts, by shard."""
        ...

    @property
    def history(self) -> Mapping[str, bytes]:
        """Encoded decisions of the trainer, by id: milliseconds since 1970."""
        ...

    @property
    def version(self) -> str:
        """Version of the artifact in use."""
        ...

    @property
    def calibration(self) -> CalibrationMap:
        """Its map from scores to persons."""
        ...


class Host(Protocol):
    """The open shards (a `ShardHost`)."""

    async def read(self, query: Callable[[Shard], Any]) -> list[Any]:
        """Return the result of a query for every open shard."""
        ...


class _Action(msgspec.Struct):
    """The part of a decision that is counted."""

    action: str


_decode_action = msgspec.json.Decoder(_Action).decode


class LiveFigures(WorkerPart):
    """Computes the live figures and shares the posts that they are computed from.

    Args:
        host: The open shards.
        metrics: The worker's metrics.
        limit: Number of closed posts that count; 0 switches everything off.
        topic: What the models topic holds.
        send: Sends a value under a key to the models topic.
        calibrate: Whether to fit the map.

    Attributes:
        figures: The newest figures, as `model.evaluation.live_figures.figures` returns them.
    """

    def __init__(
        self,
        host: Host,
        metrics: Metrics,
        limit: int,
        topic: Topic,
        send: Callable[[str, bytes], Awaitable[None]],
        *,
        calibrate: bool = True,
    ) -> None:
        self._host, self._metrics, self._limit = host, metrics, limit
        self._topic, self._send, self._calibrate = topic, send, calibrate
        self._due_s, self._fitted_s = 0.0, -FIT_S
        self._sent: dict[int, tuple[float, bytes]] = {}
        self.figures: dict[str, Any] = live_figures.figures(live_figures.newest([], 0))

    async def tick(self) -> None:
        """Compute the figures and send changed posts, if it is time."""
        if not self._limit or monotonic() < self._due_s:
            return
        self._due_s = monotonic() + EVERY_S
        shards = await self._host.read(lambda shard: (shard.shard_id, shard.posts.closed, shard.posts.open))
        own = {shard: posts for shard, posts, _ in shards}
        others = [decode(value) for shard, value in self._topic.posts.items() if shard not in own]
        posts = live_figures.newest([*own.values(), *others], self._limit)
        self._count_decisions()
        self.update(posts, sum(opened for *_, opened in shards))
        try:
            async with asyncio.timeout(SEND_WAIT_S):
                await self._share(own)
                if self._calibrate and LEADER in own:
                    await self._fit(posts)
        except Exception as error:  # noqa: BLE001 - any failure is retried: the figures must not stop a worker
            log.warning("live_figures_not_sent", extra={"error": str(error)})

    def update(self, posts: LivePosts, opened: int) -> None:
        """Compute the figures of closed posts and set the metrics; `opened` counts the open posts of this worker."""
        figures = live_figures.figures(posts)
        self.figures = figures | {"calibrated": self._topic.calibration.calibrated}
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

    def _count_decisions(self) -> None:
        """Set the metrics of the trainer's decisions."""
        history = self._topic.history
        # An action without a decision is 0, so that the first one is a rise.
        actions = Counter(dict.fromkeys(ACTIONS, 0))
        actions.update(_decode_action(value).action for value in history.values())
        self._metrics.trainer_decisions.clear()
        for action, number in actions.items():
            self._metrics.trainer_decisions.labels(action).set(number)
        self._metrics.trainer_decided.set(max((int(row_id) / 1_000 for row_id in history), default=0))

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
            await self._send(f"{POSTS}/{shard}", value)
            self._sent[shard] = monotonic(), value

    async def _fit(self, posts: LivePosts) -> None:
        """Fit the map to the posts that the artifact in use predicted; send it if it moves reach."""
        if monotonic() - self._fitted_s < FIT_S:
            return
        version, current = self._topic.version, self._topic.calibration
        fitted = fit(posts[posts["model"] == live_figures.model_number(version)])
        if fitted is None or (current.calibrated and fitted.distance(current) <= STEP):
            return
        await self._send(f"{MAP}/{version}", fitted.pack())
        self._fitted_s = monotonic()
        log.info("calibration_fitted", extra={"version": version, "posts": fitted.posts})
