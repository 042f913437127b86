"""The shard host: commits, stale steps, assignments, take-overs, reads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streams.errors import StaleStep
from streams.worker.processing.shard_host import ShardHost
from tests.support.processing import FakeShard


@pytest.fixture
def opened() -> list[FakeShard]:
    return []


@pytest.fixture
def host(opened: list[FakeShard]) -> ShardHost:
    disk: dict[int, int] = {}

    def open_shard(partition: int) -> Any:
        opened.append(FakeShard(disk, partition))
        return opened[-1]

    return ShardHost(open_shard)


def test_a_commit_is_durable(host: ShardHost, opened: list[FakeShard]) -> None:
    """The position has the committed step, and the next assignment leaves the shard open."""

    async def run() -> None:
        assert await host.sync_assignment({0: 0}) == {0: 0}
        await host.step(0, [])
        assert await host.commit(0, 5, {"a:0": 1}, lambda: True)
        assert host.position(0) == (5, {"a:0": 1})
        assert await host.sync_assignment({0: 0}) == {0: 5}
        await host.close()

    asyncio.run(run())
    assert [shard.closed for shard in opened] == [True]


def test_an_uncommitted_step_is_dropped(host: ShardHost, opened: list[FakeShard]) -> None:
    """After a step that may not be committed the shard refuses everything until it is opened again."""

    async def run() -> None:
        await host.sync_assignment({0: 0})
        await host.step(0, [])
        assert not await host.commit(0, 5, {}, lambda: False)
        with pytest.raises(StaleStep):
            await host.step(0, [])
        with pytest.raises(StaleStep):
            host.position(0)
        assert await host.sync_assignment({0: 0}) == {0: 0}
        await host.step(0, [])
        assert await host.commit(0, 1, {}, lambda: True)
        await host.close()

    asyncio.run(run())
    assert [shard.closed for shard in opened] == [True, True]


def test_one_step_may_run_ahead(host: ShardHost, opened: list[FakeShard]) -> None:
    """A step runs while the one before waits for its commit, and is committed after it; a third one is refused."""

    async def run() -> None:
        await host.sync_assignment({0: 0})
        await host.step(0, [], position=(3, {"a:0": 1}))
        await host.step(0, [], position=(5, {"a:0": 2}))
        with pytest.raises(StaleStep):
            await host.step(0, [], position=(6, {"a:0": 3}))
        assert opened[0].prepared == (3, {"a:0": 1})
        assert await host.commit(0, 3, {"a:0": 1}, lambda: True)
        assert (host.offsets[0], host.ahead(0)) == (3, True)
        with pytest.raises(StaleStep):
            host.position(0)
        assert opened[0].prepared == (5, {"a:0": 2})
        assert await host.commit(0, 5, {"a:0": 2}, lambda: True)
        assert host.position(0) == (5, {"a:0": 2})
        await host.step(0, [], position=(7, {}))
        await host.step(0, [], position=(8, {}))
        assert await host.sync_assignment({0: 0}) == {0: 5}
        await host.close()

    asyncio.run(run())
    assert [shard.closed for shard in opened] == [True, True]


def test_revoked_shards_are_closed(host: ShardHost, opened: list[FakeShard]) -> None:
    """After an assignment exactly the assigned shards are open; a step on another is stale."""

    async def run() -> None:
        await host.sync_assignment({0: 0, 1: 0})
        await host.sync_assignment({1: 0})
        with pytest.raises(StaleStep):
            await host.step(0, [])
        assert not await host.commit(0, 1, {}, lambda: True)
        await host.close()

    asyncio.run(run())
    assert {shard.partition: shard.closed for shard in opened} == {0: True, 1: True}


def test_scores_are_published_again_after_another_owner(host: ShardHost, opened: list[FakeShard]) -> None:
    """That is: state behind the published offset, revoked in between, or a missed generation of the group."""

    async def run() -> None:
        await host.sync_assignment({0: 0, 1: 7})
        assert [(shard.republished, shard.suspended) for shard in opened] == [(0, 0), (1, 0)]
        assert set(host.takeovers.new) == {1}
        await host.sync_assignment({0: 0, 1: 0}, unbroken=True)
        assert [(shard.republished, shard.suspended) for shard in opened] == [(0, 0), (1, 0)]
        await host.sync_assignment({0: 0, 1: 0})
        assert [(shard.republished, shard.suspended) for shard in opened] == [(1, 1), (2, 1)]
        await host.sync_assignment({1: 0}, unbroken=True)
        await host.sync_assignment({0: 0, 1: 0}, unbroken=True)
        assert [(shard.republished, shard.suspended) for shard in opened] == [(1, 1), (2, 1), (1, 0)]
        await host.close()

    asyncio.run(run())


def test_takeovers(opened: list[FakeShard]) -> None:
    """A shard is taken over after another owner, and after a process that did not republish or did not end cleanly.

    A republication for another reason, such as a new artifact, does not end a take-over.
    """
    disk: dict[int, int] = {}

    def host() -> ShardHost:
        return ShardHost(lambda partition: opened.append(FakeShard(disk, partition)) or opened[-1])  # type: ignore[func-returns-value]

    async def run_process(published: dict[int, int], *, finish: bool, cleanly: bool) -> set[int]:
        process = host()
        await process.sync_assignment(published)
        takeovers = dict(process.takeovers.new)
        for partition in published:
            await process.request_republish(partition, takeovers.get(partition) if finish else None)
        await process.close(cleanly=cleanly)
        return set(takeovers)

    async def finish_first_of_two(published: dict[int, int]) -> None:
        process = host()
        await process.sync_assignment(published)
        (first,) = process.takeovers.new.values()
        await process.sync_assignment({partition: offset + 1 for partition, offset in published.items()}, unbroken=True)
        await process.request_republish(1, first)
        await process.close(cleanly=True)

    async def run() -> None:
        assert await run_process({0: 0, 1: 0}, finish=False, cleanly=True) == set()
        assert await run_process({0: 0, 1: 3}, finish=False, cleanly=True) == {1}
        disk[1] = 3
        assert await run_process({0: 0, 1: 3}, finish=True, cleanly=True) == {1}
        assert await run_process({0: 0, 1: 3}, finish=False, cleanly=False) == set()
        assert await run_process({0: 0, 1: 3}, finish=True, cleanly=False) == {0, 1}
        assert await run_process({0: 0, 1: 3}, finish=True, cleanly=True) == {0, 1}
        assert await run_process({0: 0, 1: 3}, finish=False, cleanly=True) == set()
        # The end of the first take-over does not end the second.
        await finish_first_of_two({1: 4})
        assert await run_process({1: 3}, finish=True, cleanly=True) == {1}

    asyncio.run(run())


def test_where_halos_are_read_from(host: ShardHost) -> None:
    """A shard reads halos from the end, then from its position, and from the end again if Kafka deleted unread ones."""
    assert host.halo_offset(0, 3, 9) == 9
    host.halo_offsets[0] = 4
    assert host.halo_offset(0, 4, 9) == 4
    assert host.halo_offset(0, 5, 9) == 9
    assert 0 not in host.halo_offsets


def test_reading(host: ShardHost) -> None:
    """The top list is merged over the shards, and a user is found in the shard that has it."""

    async def run() -> None:
        await host.sync_assignment({0: 0, 1: 0})
        assert [row["user"] for row in await host.top(3)] == ["1-2", "0-2", "1-1"]
        assert await host.user("u1") == {"user": "u1"}
        assert await host.user("unknown") is None
        await host.close()

    asyncio.run(run())
