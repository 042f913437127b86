"""The eraser: files follow what was forgotten, marks last, copies go; what is in memory says nothing either."""

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
from streams.messages.mutation_packs import Record
from streams.shard.graph_view import graph_spec
from streams.shard.local_cluster import Cluster
from streams.shard.shard import Outcome, Shard, state_folder
from streams.telemetry.metrics import Metrics
from streams.worker.erasure import AGAIN_S, COPY_S, Eraser
from streams.worker.processing.shard_host import ShardHost
from streams.worker.web import LiveFeed
from tests.support.graphs import create, follow, forget, join, share, unshare

PERSON = "person-who-leaves"
WITHIN_S = 600.0
ARTIFACT = Artifact.default()
SPEC = graph_spec(ARTIFACT.config, retention_s=0, lateness_s=86_400)


def spec_of(shard: int, shards: int = 1) -> GraphSpec:
    """The graph of one shard."""
    return replace(SPEC, shards=shards, shard=shard)


class Worker:
    """One open shard, and an eraser with a clock of its own."""

    def __init__(self, datadir: Path, within_s: float = WITHIN_S) -> None:
        self.datadir = datadir
        self.now = 1_000.0
        self.metrics = Metrics()
        self.settled = True
        self.left: list[int] = []
        self.host = ShardHost(lambda shard: Shard.open(state_folder(datadir, shard), ARTIFACT, spec_of(shard)))
        self.eraser = Eraser(
            self.host,
            self.metrics,
            datadir,
            within_s,
            settled=lambda: self.settled,
            gone=self.left.append,
            clock=lambda: self.now,
        )

    async def step(self, *mutations: Mutation) -> None:
        """Take and commit a step."""

        def work(shard: Shard) -> None:
            shard.step(list(mutations))
            shard.commit(shard.next_offset + 1)

        await self.host.read(work)

    async def tick(self, seconds: float = 0.0) -> None:
        """Let time pass, tick, and wait for what that began."""
        self.now += seconds
        await self.eraser.tick()
        thread = self.eraser._thread
        if thread is not None:
            await asyncio.to_thread(thread.join)
            await self.eraser.tick()

    def waiting_s(self) -> float:
        """The metric."""
        return float(self.metrics.forget_waiting._value.get())

    def holding(self) -> list[str]:
        """The files that hold the person."""
        return [p.name for p in self.datadir.rglob("*") if p.is_file() and PERSON.encode() in p.read_bytes()]


def run(work: Callable[[Worker], Awaitable[None]], datadir: Path, within_s: float = WITHIN_S) -> None:
    """Work with a worker that has shard 0."""

    async def all_of_it() -> None:
        worker = Worker(datadir, within_s)
        await worker.host.settle({0: 0})
        try:
            await work(worker)
        finally:
            await worker.host.close()

    asyncio.run(all_of_it())


def test_files_follow_within_the_time(tmp_path: Path) -> None:
    """Not before it is due, and then for good; the metric tells how long it waits."""

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
    """A worker that ends before the files were written anew does it after its next start, and only once."""

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


def test_who_is_forgotten_meanwhile_is_not_taken_for_gone(tmp_path: Path) -> None:
    """A forget during the work keeps its mark; one that is not committed takes none away."""

    async def work(worker: Worker) -> None:
        await worker.step(follow(1, PERSON, "b"), follow(1, "c", "d"))
        await worker.step(forget(3, "c"))
        await worker.eraser.tick()
        thread = worker.eraser._thread
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
    """Nothing is erased for a forget that is still in work: its rows are not replaced yet."""

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


def test_what_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is counted, the mark stays, and the next attempt comes a minute later."""

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


def test_a_shard_can_go_while_its_files_are_written_anew(tmp_path: Path) -> None:
    """Closing does not wait for it and is no failure; the mark is still there for whoever opens it next."""

    async def work(worker: Worker) -> None:
        await worker.step(*(follow(1, f"{PERSON}-{n:04d}", "b") for n in range(3_000)))
        await worker.step(forget(3, f"{PERSON}-0007"))
        (store,) = await worker.host.read(lambda shard: shard.graph.store)
        entered, begin = threading.Event(), store.rewrite

        def rewrite() -> bool:
            entered.wait()
            return begin()

        store.rewrite = rewrite  # type: ignore[method-assign]
        await worker.eraser.tick()
        await worker.host.settle({})
        entered.set()
        await worker.tick()
        assert worker.metrics.erase_failures._value.get() == 0
        await worker.host.settle({0: 0})
        await worker.tick()
        assert f"{PERSON}-0007".encode() not in b"".join(
            path.read_bytes() for path in (tmp_path / "shard-0").glob("*.sst")
        )
        assert worker.metrics.erasures._value.get() == 1

    run(work, tmp_path, 0.0)


def test_a_copy_that_hears_of_no_forget_goes(tmp_path: Path) -> None:
    """The folder of a shard that another worker has is removed, not before its time and not while that is unsure."""

    async def work(worker: Worker) -> None:
        await worker.step(follow(1, PERSON, "b"))
        await worker.host.settle({})
        worker.settled = False
        await worker.tick()
        await worker.tick(10 * COPY_S)
        worker.settled = True
        await worker.tick()
        await worker.tick(COPY_S - 1)
        assert worker.holding()
        assert worker.left == []
        await worker.tick(1)
        assert worker.holding() == []
        assert worker.left == [0]
        await worker.host.settle({0: 0})
        assert worker.host.position(0)[0] == 0

    run(work, tmp_path, 0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-0"]


def test_a_shard_that_comes_back_keeps_its_folder(tmp_path: Path) -> None:
    """What is open is never taken for a copy, and its time begins anew when it goes again."""

    async def work(worker: Worker) -> None:
        await worker.step(follow(1, PERSON, "b"))
        await worker.host.settle({})
        await worker.tick()
        await worker.host.settle({0: 0})
        await worker.tick(2 * COPY_S)
        await worker.host.settle({})
        await worker.tick(COPY_S)
        assert worker.holding()
        assert worker.left == []

    run(work, tmp_path, 0.0)


def test_caches_are_emptied(tmp_path: Path) -> None:
    """Ids are the keys of caches, which end with the files or after a while."""

    async def work(worker: Worker) -> None:
        source_hash(PERSON)
        await worker.tick(WITHIN_S - 1)
        assert source_hash.cache_info().currsize
        await worker.tick(1)
        assert not source_hash.cache_info().currsize

    run(work, tmp_path)


def test_the_live_page_shows_nothing_more() -> None:
    """Neither an alert nor a trend of somebody who was forgotten."""
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
    """Some shards, wired together."""
    opened = [Shard.open(folder / str(at), ARTIFACT, spec_of(at, shards)) for at in range(shards)]
    tried = Cluster(opened)
    try:
        yield tried
    finally:
        tried.close()


def life(person: str) -> Iterator[Mutation]:
    """Everything that somebody can do or have done."""
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


def test_no_row_says_anything_of_the_forgotten(tmp_path: Path) -> None:
    """On no shard does a row of theirs differ from that of somebody who never did anything, in any tensor."""
    with cluster(tmp_path) as tried:
        named: list[str] = []

        def noted(outcome: Outcome) -> None:
            named.extend(outcome.named)

        tried.feed([follow(1, f"f{n}", f"f{n + 1}") for n in range(9)])
        tried.feed(life(PERSON))
        tried.drain()
        home = tried.shards[owner(PERSON, 3)]
        assert home.user(PERSON)
        assert all(PERSON in shard.graph.ledger.users.index for shard in tried.shards), "no mirrors: it proves nothing"
        for when in (100, 101):
            tried.feed([forget(when, PERSON), forget(when, "nobody-ever")])
            tried.drain(noted)
        assert named.count(PERSON) == 2 * 3
        for shard in tried.shards:
            person, blank = (shard.graph.ledger.users.forgotten[forgotten_key(n)] for n in (PERSON, "nobody-ever"))
            for one, two in zip(told(shard, person), told(shard, blank), strict=True):
                assert np.array_equal(one, two)
            assert not shard.graph.ledger.users.counts[person].any()
            assert shard.graph.ledger.users.made_at[person] == NEVER
            assert PERSON not in shard.graph.ledger.users.index
            assert shard.user(PERSON) is None


def told(shard: Shard, row: int) -> list[Any]:
    """All that a shard's memory says of a user's row, but for when and whose it is."""
    users, engine = shard.graph.ledger.users, shard.engine
    mine = shard.graph.ledger.users.owned[row]
    computed = [engine.hidden1[USER][row], engine.hidden2[row], engine.score[row], users.own[row]] if mine else []
    columns = [users.rings[row], users.tops[row], users.propagated[row], users.ids[row], users.live(row)]
    said = shard.said
    published = [said.reach[row], said.percentile[row], said.alerted[row], shard.ranking._bin[row]]
    return [*computed, *columns, engine.x[USER][row], *(np.nan_to_num(value, nan=-1) for value in published)]


def test_a_withdrawal_is_repeated_with_the_scores(tmp_path: Path) -> None:
    """Who was forgotten while a former owner's score may come late is withdrawn once more, unless there again."""

    async def run() -> None:
        host = Worker(tmp_path).host
        await host.settle({0: 1})
        offset = 0

        async def step(*mutations: Mutation, commits: bool = True) -> Outcome:
            nonlocal offset
            records = [Record(offset, list(mutations))] if mutations else []
            outcome = await host.step(0, records)
            offset += len(records)
            assert await host.commit(0, offset, {}, lambda: commits) == commits
            return outcome

        await step(follow(1, "a", "b"), follow(1, "c", "b"))
        assert (await step(forget(5, "a"), forget(5, "c"))).forgotten == ["a", "c"]
        await step(follow(9, "c", "b"))
        await host.owe(0, host.taken_over[0])
        outcome = await step(commits=False)
        assert outcome.forgotten == ["a"]
        assert {score.user for score in outcome.scores} == {"b", "c"}
        # It was not committed, so that does not count as said; the scores follow from a debt of their own.
        host.taken_over.clear()
        await host.settle({0: 1}, unbroken=True)
        assert set(host.taken_over) == {0}
        assert (await step()).forgotten == ["a"]
        await host.owe(0)
        assert (await step()).forgotten == []
        await host.close()

    asyncio.run(run())
