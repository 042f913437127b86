"""The demo's button: send one real share through Kafka and show what it changed; on the demo's worker only.

`POST /api/v1/demo/share`: a new user shares the newest post of one of the first users by reach. The step that scores
the new user is the one that applied the share; its costs are those of the answer.
`POST /api/v1/demo/check?user=`: the reference of the audit computes a user from what is in RocksDB, and is compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from random import Random
from time import perf_counter
from typing import Any

from aiohttp import web

from graphstate.queries import true_edges
from graphstate.types import CREATED, TYPES, USER
from model.engine.dual_engine import DualEngine
from streams.errors import GroundswellError, WorkerError
from streams.kafka.event_producer import Sender, sender
from streams.shard.shard import Outcome, Shard
from streams.worker.inspection.reference_process import ReferenceProcess
from streams.worker.inspection.user_audit import compare, read_snapshot
from streams.worker.worker import Worker

SHARE, CHECK = "/api/v1/demo/share", "/api/v1/demo/check"
ANSWER_S = 15.0
CANDIDATES = 20
READ_EDGES_MAX = 2_880
CHECK_TRIES = 20
CHECK_WAIT_S = 0.02
JSON = "application/json"


@dataclass(frozen=True)
class Post:
    """A post to share: its author and id, and event time (s) that is after it."""

    author: str
    content: str
    time: float


class ShareButton:
    """The handler, and what it keeps between two requests; one request at a time.

    Args:
        worker: The demo's worker.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._random = Random()
        self._visitors = 0
        self._one_at_a_time = asyncio.Lock()
        self._resources = AsyncExitStack()
        self._sender: Sender | None = None
        self._reference: tuple[str, ReferenceProcess] | None = None

    @classmethod
    def attach(cls, worker: Worker) -> None:
        """Add the button to a worker that has not started."""
        button = cls(worker)
        worker.web.demo = True
        app: Any = worker.app
        app.web.web_app.router.add_post(SHARE, button.share)
        app.web.web_app.router.add_post(CHECK, button.check)

        @app.on_before_shutdown.connect(weak=False)
        async def close(*_: Any, **__: Any) -> None:
            await button.close()

    async def close(self) -> None:
        """Close producer and reference; a check that runs ends with an error, instead of delaying the stop."""
        if self._reference is not None:
            self._reference[1].close()
        await self._resources.aclose()

    async def share(self, request: web.Request) -> web.Response:
        """Send a share of a new user, and return what it changed."""
        return await self._answer(request, self._share)

    async def check(self, request: web.Request) -> web.Response:
        """Compare a user as served with the reference; the first call starts the reference, which takes seconds."""
        return await self._answer(request, lambda: self._check(request.query.get("user", "")))

    async def _answer(self, request: web.Request, work: Callable[[], Awaitable[dict[str, Any]]]) -> web.Response:
        # A page of another site can send no JSON without asking first.
        if request.content_type != JSON:
            return web.json_response({"error": f"send {JSON}"}, status=415)
        try:
            async with self._one_at_a_time:
                return web.json_response(await work())
        except (GroundswellError, TimeoutError) as error:
            return web.json_response({"error": str(error) or "no score in time; try again"}, status=503)

    async def _share(self) -> dict[str, Any]:
        host = self._worker.host
        post = next((post for post in await host.read(self._choose) if post), None)
        if post is None:
            raise WorkerError("none of the first users has a post yet; try again")
        before = await self._reach(post.author)
        self._visitors += 1
        visitor = f"visitor.{self._visitors}.{self._random.getrandbits(16):x}"
        row = {"type": "share", "time": post.time, "user": visitor, "content": post.content}
        out = await self._open_sender()
        with _published(self._worker, visitor) as published:
            begin = perf_counter()
            await out.send([row])
            async with asyncio.timeout(ANSWER_S):
                outcome, mutations, end = await published
        rows = await host.read(lambda shard: [shard.view.rows(kind) for kind in range(len(TYPES))])
        return {
            "user": visitor,
            "content": post.content,
            "author": post.author,
            "ms": 1e3 * (end - begin),
            "mutations": mutations,
            "layer1": outcome.frontier[0],
            "layer2": outcome.frontier[1],
            "nodes": sum(map(sum, rows)),
            "users": sum(of_shard[USER] for of_shard in rows),
            "scores": len(outcome.scores),
            "reach_before": before,
            "reach_after": await self._reach(post.author),
        }

    def _choose(self, shard: Shard) -> Post | None:
        """Return the newest post of one of the first users of a shard; between two steps."""
        graph = shard.graph
        authors = [entry["user"] for entry in shard.reads.top(CANDIDATES)]
        self._random.shuffle(authors)
        for author in authors:
            newest = true_edges.newest(graph, CREATED, graph.users.index[author], 1)
            for time, content in newest:
                if identity := graph.contents.ids[content]:
                    return Post(author, identity, max(time, shard.clock) / 1e6)
        return None

    async def _reach(self, user: str) -> float:
        found = await self._worker.host.user(user)
        return float(found["reach"]) if found else 0.0

    async def _open_sender(self) -> Sender:
        if self._sender is None:
            self._sender = await self._resources.enter_async_context(sender(self._worker.settings))
        return self._sender

    async def _check(self, user: str) -> dict[str, Any]:
        name = (
            "PyTorch Geometric" if find_spec("torch_geometric") else "the same network in NumPy (no PyTorch Geometric)"
        )
        for _ in range(CHECK_TRIES):
            read = await self._worker.host.run_on_any(
                lambda shards: _owner(shards, user), lambda shard: _snapshot(shard, user)
            )
            if read is not None:
                break
            await asyncio.sleep(CHECK_WAIT_S)
        else:
            return {"error": None, "reference": name, "why": "the shard was busy"}
        artifact, snapshot = read
        if snapshot is None:
            return {"error": None, "reference": name, "why": "the user has too many neighbours"}
        if self._reference is None or self._reference[0] != artifact.version:
            if self._reference is not None:
                self._reference[1].close()
            self._reference = artifact.version, ReferenceProcess(artifact)
        result = await asyncio.to_thread(compare, snapshot, self._reference[1])
        return {"error": result.error, "mismatches": result.mismatches, "reference": name, "why": ""}


def _owner(shards: list[Shard], author: str) -> Shard | None:
    """Return the shard that has a user, if its values are those of one artifact."""
    for shard in shards:
        if author in shard.graph.users.index and shard.graph.users.owns(author):
            return None if isinstance(shard.engine, DualEngine) else shard
    return None


def _snapshot(shard: Shard, author: str) -> tuple[Any, Any]:
    return shard.artifact, read_snapshot(shard, shard.graph.users.index[author], 0, READ_EDGES_MAX)


@contextmanager
def _published(worker: Worker, user: str) -> Iterator[asyncio.Future[tuple[Outcome, int, float]]]:
    """Yield a future of the micro-batch that publishes a user's score: outcome, mutations, and the time it was done."""
    done: asyncio.Future[tuple[Outcome, int, float]] = asyncio.get_running_loop().create_future()

    def see(outcome: Outcome, mutations: int) -> None:
        if not done.done() and any(score.user == user for score in outcome.scores):
            done.set_result((outcome, mutations, perf_counter()))

    worker.feed.on_publish.append(see)
    try:
        yield done
    finally:
        worker.feed.on_publish.remove(see)
