"""The shard agent without a broker: stale polls, delivered packs, announcements and switches of the artifact."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from streams.errors import StaleStep
from streams.kafka.consumer.poll_queue import Poll
from streams.kafka.leased_client import LEASE_OVER, Refused
from streams.kafka.topics import Topics
from streams.settings.settings import Settings
from streams.shard.shard import Outcome
from streams.telemetry.metrics import Metrics
from streams.worker.group.assignment import Assignment
from streams.worker.processing import delivered_packs
from streams.worker.processing.shard_agent import Outputs, ShardAgent
from streams.worker.processing.shard_host import ShardHost
from streams.worker.rollout.follower import RolloutFollower
from streams.worker.rollout.models_topic import (
    Deployment,
    ModelsTopicMessage,
    ModelsTopicState,
)
from tests.support.processing import FakeShard, pack, records


class Served(FakeShard):
    """A shard with an artifact, without hubs and without halos to send."""

    def __init__(self, disk: dict[int, int], partition: int) -> None:
        super().__init__(disk, partition)
        self.artifact = SimpleNamespace(version="old")
        self.staleness = SimpleNamespace(hub_queue=SimpleNamespace(waiting=0))

    def announce(self, _token: int) -> list[Any]:
        """Return no halos."""
        return []


class Rig:
    """The agent of two shards with a fake consumer and producer; the test changes the epoch and reads the messages."""

    def __init__(self, settings: Settings) -> None:
        topics = Topics(settings.model_copy(update={"shards": 2}))
        self.log, self.halos = topics.mutations.name, topics.halos.name
        self.epoch, self.refuses, self.refuses_polls = 1, False, False
        self.completed: list[Poll] = []
        self.started: list[Poll] = []
        self.abandoned: list[Poll] = []
        self.up_to_date: list[tuple[int, bool]] = []
        self.sent: list[tuple[str, int]] = []
        self.shards: list[Served] = []
        self.host = ShardHost(self._open)
        outputs, feed = (
            Outputs(topics, "/t"),
            SimpleNamespace(forget=lambda _users: None, publish=lambda _outcome, _mutations: None),
        )
        consumer: Any = SimpleNamespace(
            is_current=self._current,
            empty_poll=lambda topic: Poll(topic, self.epoch, 0),
            complete_poll=self.completed.append,
            start_poll=self.started.append,
            abandon_poll=self.abandoned.append,
            delivered=lambda tp, *, up_to_date: self.up_to_date.append((tp.partition, up_to_date)),
        )
        producer: Any = SimpleNamespace(client=self)
        self.agent = ShardAgent(self.host, consumer, producer, outputs, topics, Metrics(), feed)  # type: ignore[arg-type]

    def _open(self, partition: int) -> Any:
        self.shards.append(Served({}, partition))
        return self.shards[-1]

    def _current(self, poll: Poll) -> bool:
        return poll.epoch == self.epoch and not self.refuses_polls

    async def send(self, topic: str, _value: bytes, *, partition: int) -> asyncio.Future[Any]:
        """Acknowledge a message, or refuse it."""
        if self.refuses:
            raise Refused(LEASE_OVER)
        self.sent.append((topic, partition))
        future = asyncio.get_running_loop().create_future()
        future.set_result(SimpleNamespace(offset=len(self.sent)))
        return future

    def poll(self) -> Poll:
        """Return a poll of the present epoch with the first pack of shard 0."""
        poll = Poll(self.log, self.epoch, 1)
        poll.add(TP(self.log, 0), records(pack(0, 1)), 1)
        return poll


def test_a_poll_from_before_a_seek_runs_no_step(offline_settings: Settings) -> None:
    """A poll that waited during a seek leaves the shard unchanged; the next poll runs its step."""

    async def run() -> None:
        rig = Rig(offline_settings)
        await rig.host.sync_assignment({0: 0})
        rig.agent.published_until = {TP(rig.log, 0): 9}  # so nothing is published
        stale = rig.poll()
        async with rig.agent._lock:
            handled = asyncio.ensure_future(rig.agent.handle(stale))
            await asyncio.sleep(0)
            rig.epoch += 1
            await rig.host.sync_assignment({0: 0}, unbroken=True)
        assert not await handled
        assert rig.completed == []
        assert rig.host.position(0) == (0, {})
        poll = rig.poll()
        assert await rig.agent.handle(poll)
        assert rig.completed == [poll]
        assert rig.host.position(0) == (1, {"in:0": 0})
        await rig.host.close()

    asyncio.run(run())


def test_delivered_packs_are_applied_once(offline_settings: Settings) -> None:
    """Packs that follow the state run a step before they are fetched, and are skipped when they are; others wait."""
    due: list[int] = []

    async def run() -> None:
        rig = Rig(offline_settings)
        rig.agent.on_waiting = due.append
        await rig.host.sync_assignment({0: 0})
        rig.agent.deliver(1, 0, pack(0, 1), [])  # of another worker
        assert due == []
        rig.agent.deliver(0, 1, pack(1, 1), [])  # the pack before it was not delivered
        await rig.agent.run_pending(0)
        assert rig.host.position(0) == (0, {})
        for offset in (0, 1, 3):
            rig.agent.deliver(0, offset, pack(offset, 1), [])
        assert due == [0, 0]
        await rig.agent.run_pending(0)
        assert rig.host.position(0) == (2, {"in:0": 1})
        assert rig.up_to_date == [(0, False), (0, False)]  # the pack at offset 3 must be fetched
        assert rig.started == rig.completed
        assert rig.completed.pop().parts == {TP(rig.log, 0): ([], 2)}
        poll = Poll(rig.log, rig.epoch, 1)
        poll.add(TP(rig.log, 0), records(*(pack(offset, 1) for offset in range(4))), 4)
        assert await rig.agent.handle(poll)
        assert rig.host.position(0) == (4, {"in:0": 3})
        assert rig.completed == [poll]
        rig.agent.deliver(0, 5, pack(5, 1), [])
        rig.agent.deliver(0, 4, pack(4, 1), [])  # acknowledged in another order
        rig.refuses_polls = True
        await rig.agent.run_pending(0)
        assert rig.host.position(0) == (4, {"in:0": 3})
        assert rig.abandoned == [rig.started[-1]]
        assert rig.up_to_date.pop() == (0, True)
        await rig.host.close()

    asyncio.run(run())


def test_few_delivered_packs_wait(offline_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a busy shard is bounded; packs beyond come with the fetch."""
    monkeypatch.setattr(delivered_packs, "DELIVERED_BYTES", 100)

    async def run() -> None:
        rig = Rig(offline_settings)
        await rig.host.sync_assignment({0: 0})
        for offset in range(50):
            rig.agent.deliver(0, offset, pack(offset, 1), [])
        await rig.agent.run_pending(0)
        next_offset, _ = rig.host.position(0)
        assert 0 < next_offset < 10
        await rig.host.close()

    asyncio.run(run())


def test_held_rows_are_counted(offline_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics have the sum of the held rows of all steps, and the largest effect of one of them."""
    effects = iter([(7, 0.0), (5, 0.25), (3, 0.125), (0, 0.0)])

    def process(_shard: Served, *_: Any, **_named: Any) -> Outcome:
        held, effect = next(effects)
        return Outcome(held=held, effect=effect)

    async def run() -> bytes:
        rig = Rig(offline_settings)
        await rig.host.sync_assignment({0: 0})
        rig.agent.published_until = {TP(rig.log, 0): 9}  # so nothing is published
        for number in range(4):
            poll = Poll(rig.log, rig.epoch, 1 + number)
            poll.add(TP(rig.log, 0), records(pack(number, 1), first=number), number + 1)
            assert await rig.agent.handle(poll)
        await rig.host.close()
        return rig.agent._metrics.text()

    monkeypatch.setattr(Served, "process", process)
    text = asyncio.run(run())
    assert b"groundswell_tolerance_held_rows_total 15.0\n" in text
    assert b"groundswell_tolerance_effect 0.25\n" in text


def test_a_revoked_shard_is_not_announced(offline_settings: Settings) -> None:
    """Neither a scheduled republication nor an announcement is sent for a shard that another worker owns."""
    begun: list[int] = []

    async def begin(partition: int, **_named: Any) -> None:
        begun.append(partition)

    async def run() -> None:
        rig = Rig(offline_settings)
        await rig.host.sync_assignment({0: 0, 1: 0})
        await rig.host.sync_assignment({1: 0}, unbroken=True)
        assignment: Any = SimpleNamespace(
            _host=rig.host, _readiness=SimpleNamespace(stopping=False), _steps=set(), step=begin
        )
        for partition in (0, 1):
            Assignment.republish_soon(assignment, partition)
        await asyncio.gather(*assignment._steps)
        assert begun == [1]
        with pytest.raises(StaleStep):
            await rig.agent.run_pending(0)
        assert rig.sent == []
        await rig.agent.run_pending(1)
        assert rig.sent == [(rig.halos, 1)]
        await rig.host.close()

    asyncio.run(run())


def test_a_switch_is_reported_after_a_refused_announcement(offline_settings: Settings) -> None:
    """A switch of the artifact is reported once, also when its announcement is refused; its status follows later."""
    switched: list[int] = []
    statuses: list[str] = []

    async def say(message: ModelsTopicMessage) -> None:
        statuses.append(message.key)

    async def run() -> None:
        rig, new, notices = Rig(offline_settings), SimpleNamespace(version="new"), ModelsTopicState()
        notices.use = Deployment("x", "new", 1, "")
        await rig.host.sync_assignment({0: 0})
        board: Any = SimpleNamespace(state=notices)
        make: Any = None
        configured: Any = new
        following = RolloutFollower(board, rig.host, rig.agent, make, configured, "w0", say, switched.append)
        successor: Any = SimpleNamespace(
            artifact=new, shard=rig.shards[0], checked=True, take_over=lambda shard: setattr(shard, "artifact", new)
        )
        following._replacements[0] = successor
        rig.refuses = True
        with pytest.raises(Refused):
            await following.follow()
        assert (switched, statuses) == ([0], [])
        rig.refuses = False
        await following.follow()
        assert (switched, statuses) == ([0], ["shard/0"])
        await rig.host.close()

    asyncio.run(run())
