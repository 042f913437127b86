"""The erasure rewrites files, keeps marks, removes copies; memory holds no trace of forgotten users either."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphstate.errors import GraphError
from graphstate.memory.node_tables import forgotten_key
from graphstate.storage.row_layouts import NEVER
from graphstate.types import USER, GraphSpec, Mutation, owner, source_hash
from model.artifact import Artifact
from streams.messages.packs.mutation_packs import Record
from streams.shard.graph_view import graph_spec
from streams.shard.local_cluster import Cluster
from streams.shard.shard import Outcome, Shard
from streams.telemetry.metrics import Metrics
from streams.worker.data_dir import state_folder
from streams.worker.erasure import AGAIN_S, COPY_S, DataErasure
from streams.worker.processing.shard_host import ShardHost
from streams.worker.web import LiveFeed
from tests.support.graphs import create, follow, forget, join, share, unshare

PERSON = "person-who-leaves"
WITHIN_S = 600.0
ARTIFACT = Artifact.default()
SPEC = graph_spec(ARTIFACT.config, retention_s=0, lateness_s=86_400)


def spec_of(shard: int, shards: int = 1) -> GraphSpec:
    """Return the graph specification of one shard."""
    return replace(SPEC, shards=shards, shard=shard)


class Worker:
    """One open shard, and an erasure with a clock set by the test."""

    def __init__(self, datadir: Path, within_s: float = WITHIN_S) -> None:
        self.datadir = datadir
        self.now = 1_000.0
        self.metrics = Metrics()
        self.assigned = True
        self.removed: list[int] = []
        self.host = ShardHost(lambda shard: Shard.open(state_folder(datadir, shard), ARTIFACT, spec_of(shard)))
        self.erasure = DataErasure(
            self.host,
            self.metrics,
            datadir,
            within_s,
            assignment_known=lambda: self.assigned,
            on_removed=self.removed.append,
            clock=lambda: self.now,
        )

    async def step(self, *mutations: Mutation) -> None:
        """Step the shard and commit."""

        def work(shard: Shard) -> None:
            shard.step(list(mutations))
            shard.commit(shard.next_offset + 1)

        await self.host.read(work)

    async def tick(self, seconds: float = 0.0) -> None:
        """Advance the clock, tick, and wait for the rewrite."""
        self.now += seconds
        await self.erasure.tick()
        thread = self.erasure._thread
        if thread is not None:
            await asyncio.to_thread(thread.join)
            await self.erasure.tick()

    def waiting_s(self) -> float:
        """Return the value of the metric."""
        return float(self.metrics.forget_waiting._value.get())

    def holding(self) -> list[str]:
        """Return the names of the files that hold the person's id."""
        return [p.name for p in self.datadir.rglob("*") if p.is_file() and PERSON.encode() in p.read_bytes()]


def run(work: Callable[[Worker], Awaitable[None]], datadir: Path, within_s: float = WITHIN_S) -> None:
    """Run a test with a worker that has shard 0 open."""

    async def run_all() -> None:
        worker = Worker(datadir, within_s)
        await worker.host.sync_assignment({0: 0})
        try:
            await work(worker)
        finally:
            await worker.host.close()

    asyncio.run(run_all())


def test_files_are_rewritten_within_the_time(tmp_path: Path) -> None:
    """Files are rewritten once, when due; the metric shows the waiting time."""

    async def work(worker: Worker) -> None:
        await worker.step(follow(1, PERSON, "b"), share(2, PERSON, "x"))
        await worker.tick(5 * WITHIN_S)
        assert worker.waiting_s() == 0
        await worker.step(forget(3, PERSON))
        await worker.tick(1)
        await worker.tick(WITHIN_S - 1)
        assert worker.waiting_s() == WITHIN_S - 1
        assert worker.holding()
        await worker.tick(1)
        assert worker.holding() == []
        assert worker.waiting_s() == 0
        assert worker.metrics.erasures._value.get() == 1

    run(work, tmp_path)


def test_the_mark_outlives_the_process(tmp_path: Path) -> None:
    """A worker that ends before the rewrite does it after its next start, once."""

    async def before(worker: Worker) -> None:
        await worker.step(follow(1, PERSON, "b"))
        await worker.host.read(lambda shard: shard.graph.store.rewrite())  # into a file that stays
        await worker.step(forget(3, PERSON))

    async def afterwards(worker: Worker) -> None:
        assert worker.holding()
        await worker.tick()
        assert worker.holding() == []
        await worker.tick(WITHIN_S)
        assert worker.metrics.erasures._value.get() == 1

    run(before, tmp_path)
    run(afterwards, tmp_path, 0.0)


def test_a_forget_during_the_rewrite_keeps_its_mark(tmp_path: Path) -> None:
    """The rewrite removes only the marks that existed at its start."""

    async def work(worker: Worker) -> None:
        await worker.step(follow(1, PERSON, "b"), follow(1, "c", "d"))
        await worker.step(forget(3, "c"))
        await worker.erasure.tick()
        thread = worker.erasure._thread
        assert thread is not None
        await worker.step(forget(4, PERSON))
        await asyncio.to_thread(thread.join)
        (marks,) = await worker.host.read(lambda shard: shard.graph.unerased())
        await worker.tick()
        assert marks
        assert worker.metrics.erasures._value.get() == 2
        assert worker.holding() == []

    run(work, tmp_path, 0.0)


def test_a_step_that_is_not_committed_has_no_mark(tmp_path: Path) -> None:
    """A forget causes no rewrite before its commit: its rows are not replaced yet."""

    async def work(worker: Worker) -> None:
        await worker.step(follow(1, PERSON, "b"))
        await worker.host.read(lambda shard: shard.step([forget(3, PERSON)]))
        await worker.tick()
        assert worker.metrics.erasures._value.get() == 0
        await worker.host.read(lambda shard: shard.commit(9))
        await worker.tick()
        assert worker.metrics.erasures._value.get() == 1
        assert worker.holding() == []

    run(work, tmp_path, 0.0)


def test_a_failed_rewrite_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is counted, the mark stays, and the next attempt follows a minute later."""

    async def work(worker: Worker) -> None:
        await worker.step(follow(1, PERSON, "b"))
        await worker.step(forget(3, PERSON))
        (store,) = await worker.host.read(lambda shard: shard.graph.store)
        with monkeypatch.context() as patch:
            patch.setattr(store, "rewrite", broken)
            await worker.tick()
        await worker.tick(AGAIN_S - 1)
        assert worker.metrics.erase_failures._value.get() == 1
        assert worker.holding()
        await worker.tick(1)
        assert worker.holding() == []

    def broken() -> bool:
        raise GraphError("is the disk full?")

    run(work, tmp_path, 0.0)


def test_a_shard_may_close_during_its_rewrite(tmp_path: Path) -> None:
    """Closing does not wait for the rewrite and does not count as a failure; the mark stays."""

    async def work(worker: Worker) -> None:
        await worker.step(*(follow(1, f"{PERSON}-{n:04d}", "b") for n in range(3_000)))
        await worker.step(forget(3, f"{PERSON}-0007"))
        (store,) = await worker.host.read(lambda shard: shard.graph.store)
        entered, begin = threading.Event(), store.rewrite

        def rewrite() -> bool:
            entered.wait()
            return begin()

        store.rewrite = rewrite  # type: ignore[method-assign]
        await worker.erasure.tick()
        await worker.host.sync_assignment({})
        entered.set()
        await worker.tick()
        assert worker.metrics.erase_failures._value.get() == 0
        await worker.host.sync_assignment({0: 0})
        await worker.tick()
        assert f"{PERSON}-0007".encode() not in b"".join(
            path.read_bytes() for path in (tmp_path / "shard-0").glob("*.sst")
        )
        assert worker.metrics.erasures._value.get() == 1

    run(work, tmp_path, 0.0)


def test_a_copy_of_another_workers_shard_is_removed(tmp_path: Path) -> None:
    """It is removed after the minimum age, and only once the assignment is known."""

    async def work(worker: Worker) -> None:
        await worker.step(follow(1, PERSON, "b"))
        await worker.host.sync_assignment({})
        worker.assigned = False
        await worker.tick()
        await worker.tick(10 * COPY_S)
        worker.assigned = True
        await worker.tick()
        await worker.tick(COPY_S - 1)
        assert worker.holding()
        assert worker.removed == []
        await worker.tick(1)
        assert worker.holding() == []
        assert worker.removed == [0]
        await worker.host.sync_assignment({0: 0})
        assert worker.host.position(0)[0] == 0

    run(work, tmp_path, 0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-0"]


def test_a_shard_that_is_assigned_again_keeps_its_folder(tmp_path: Path) -> None:
    """An open shard is no copy; the age of a copy counts from the last revocation."""

    async def work(worker: Worker) -> None:
        await worker.step(follow(1, PERSON, "b"))
        await worker.host.sync_assignment({})
        await worker.tick()
        await worker.host.sync_assignment({0: 0})
        await worker.tick(2 * COPY_S)
        await worker.host.sync_assignment({})
        await worker.tick(COPY_S)
        assert worker.holding()
        assert worker.removed == []

    run(work, tmp_path, 0.0)


def test_caches_are_emptied(tmp_path: Path) -> None:
    """Caches with ids as keys are cleared periodically."""

    async def work(worker: Worker) -> None:
        source_hash(PERSON)
        await worker.tick(WITHIN_S - 1)
        assert source_hash.cache_info().currsize
        await worker.tick(1)
        assert not source_hash.cache_info().currsize

    run(work, tmp_path)


def test_the_live_page_forgets_a_user() -> None:
    """Alerts and trends of a forgotten user are removed."""
    feed = LiveFeed()
    for user in (PERSON, "b"):
        feed._alerts.append({"user": user})
    feed.trend.sample([{"user": PERSON, "reach": 1.0}, {"user": "b", "reach": 1.0}])
    feed.forget([PERSON])
    assert [alert["user"] for alert in feed.alerts(9)] == ["b"]
    assert feed.trend.change(PERSON, 2.0) is None
    assert feed.trend.change("b", 2.0) == 1.0


# In memory


@contextmanager
def cluster(folder: Path, shards: int = 3) -> Iterator[Cluster]:
    """Open some connected shards for the duration of the context."""
    opened = [Shard.open(folder / str(at), ARTIFACT, spec_of(at, shards)) for at in range(shards)]
    connected = Cluster(opened)
    try:
        yield connected
    finally:
        connected.close()


def life(person: str) -> Iterator[Mutation]:
    """Yield every kind of event of and about a person."""
    for number in range(8):
        yield create(number, person, f"own-{number}", "parent")
        for other in range(6):
            yield share(20 + number + other, f"f{other}", f"own-{number}", person)
        yield create(number, f"f{number}", f"c{number}")
        yield share(30 + number, person, f"c{number}", f"f{number}")
        yield follow(40 + number, person, f"f{number}")
        yield follow(40 + number, f"f{number}", person)
        yield join(50, person, f"k{number}")
    yield unshare(60, person, "c3")


def test_no_row_holds_a_trace_of_a_forgotten_user(tmp_path: Path) -> None:
    """On every shard, in every tensor, its row equals that of a user without any event."""
    with cluster(tmp_path) as tried:
        named: list[str] = []

        def collect(outcome: Outcome) -> None:
            named.extend(outcome.named)

        tried.feed([follow(1, f"f{n}", f"f{n + 1}") for n in range(9)])
        tried.feed(life(PERSON))
        tried.drain()
        home = tried.shards[owner(PERSON, 3)]
        assert home.reads.user(PERSON)
        assert all(PERSON in shard.graph.users.index for shard in tried.shards), (
            "no shard mirrors the user: the test proves nothing"
        )
        for when in (100, 101):
            tried.feed([forget(when, PERSON), forget(when, "nobody-ever")])
            tried.drain(collect)
        assert named.count(PERSON) == 2 * 3
        for shard in tried.shards:
            person, blank = (shard.graph.users.forgotten[forgotten_key(n)] for n in (PERSON, "nobody-ever"))
            for forgotten, unused in zip(values(shard, person), values(shard, blank), strict=True):
                assert np.array_equal(forgotten, unused)
            assert not shard.graph.users.counts[person].any()
            assert shard.graph.users.last_share_at[person] == NEVER
            assert PERSON not in shard.graph.users.index
            assert shard.reads.user(PERSON) is None


def values(shard: Shard, row: int) -> list[Any]:
    """Return every value of a user's row in a shard's memory, except its times and its id."""
    users, engine = shard.graph.users, shard.engine
    mine = shard.graph.users.owned[row]
    computed = [engine.hidden1[USER][row], engine.hidden2[row], engine.score[row], users.own[row]] if mine else []
    columns = [users.rings[row], users.tops[row], users.propagated[row], users.ids[row], users.live(row)]
    said = shard.publisher.published
    published = [said.reach[row], said.percentile[row], said.alerted[row], shard.publisher.percentiles._bin[row]]
    return [*computed, *columns, engine.x[USER][row], *(np.nan_to_num(value, nan=-1) for value in published)]


def test_a_withdrawal_is_repeated_with_the_scores(tmp_path: Path) -> None:
    """A user forgotten while a late score of a former owner may arrive gets a second tombstone, unless live again."""

    async def run() -> None:
        host = Worker(tmp_path).host
        await host.sync_assignment({0: 1})
        offset = 0

        async def step(*mutations: Mutation, commits: bool = True) -> Outcome:
            nonlocal offset
            records = [Record.of(offset, list(mutations))] if mutations else []
            outcome = await host.step(0, records)
            offset += len(records)
            assert await host.commit(0, offset, {}, lambda: commits) == commits
            return outcome

        await step(follow(1, "a", "b"), follow(1, "c", "b"))
        assert (await step(forget(5, "a"), forget(5, "c"))).forgotten == ["a", "c"]
        await step(follow(9, "c", "b"))
        await host.request_republish(0, host.takeovers.new[0])
        outcome = await step(commits=False)
        assert outcome.forgotten == ["a"]
        assert {score.user for score in outcome.scores} == {"b", "c"}
        # Without the commit the tombstone is pending again; the scores are pending through the new takeover.
        host.takeovers.new.clear()
        await host.sync_assignment({0: 1}, unbroken=True)
        assert set(host.takeovers.new) == {0}
        assert (await step()).forgotten == ["a"]
        await host.request_republish(0)
        assert (await step()).forgotten == []
        await host.close()

    asyncio.run(run())
