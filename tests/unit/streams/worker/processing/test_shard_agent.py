"""The shard agent without a broker: what comes too late leaves no trace, and what a switch owes is always said."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from tests.unit.streams.test_agents import FakeShard, pack, records

from streams.errors import StaleStep
from streams.kafka.consumer.transport import Poll
from streams.kafka.leased_client import BEGUN, Refused
from streams.kafka.topics import Topics
from streams.settings.settings import Settings
from streams.shard.shard import Outcome
from streams.telemetry.metrics import Metrics
from streams.worker.processing.publisher import Outputs
from streams.worker.processing.shard_agent import ShardWork
from streams.worker.processing.shard_host import ShardHost
from streams.worker.rollout.follower import Switching
from streams.worker.rollout.models_topic import Message, Notices, Order
from streams.worker.worker import Worker


class Served(FakeShard):
    """Serves an artifact, reads no hub, and has nothing to show others."""

    def __init__(self, disk: dict[int, int], partition: int) -> None:
        super().__init__(disk, partition)
        self.artifact = SimpleNamespace(version="old")
        self.staleness = SimpleNamespace(hub_queue=SimpleNamespace(waiting=0))

    def announce(self, _token: int) -> list[Any]:
        """Nothing to send."""
        return []


class Rig:
    """The agent of two shards, as its own consumer and producer: epochs end when told to, messages are kept."""

    def __init__(self, settings: Settings) -> None:
        topics = Topics(settings.model_copy(update={"shards": 2}))
        self.log, self.halos = topics.mutations.name, topics.halos.name
        self.epoch, self.refuses = 1, False
        self.sent: list[tuple[str, int]] = []
        self.shards: list[Served] = []
        self.host = ShardHost(self._open)
        outputs, feed = Outputs(topics.score, topics.alert, "/t"), SimpleNamespace(forget=lambda _users: None)
        consumer: Any = SimpleNamespace(current=self._current, no_poll=lambda topic: Poll(topic, self.epoch, 0))
        producer: Any = SimpleNamespace(client=self)
        self.work = ShardWork(self.host, consumer, producer, outputs, topics, Metrics(), feed)  # type: ignore[arg-type]

    def _open(self, partition: int) -> Any:
        self.shards.append(Served({}, partition))
        return self.shards[-1]

    def _current(self, poll: Poll) -> bool:
        return poll.epoch == self.epoch

    async def send(self, topic: str, _value: bytes, *, partition: int) -> asyncio.Future[Any]:
        """Take a message, unless all are refused."""
        if self.refuses:
            raise Refused(BEGUN)
        self.sent.append((topic, partition))
        future = asyncio.get_running_loop().create_future()
        future.set_result(SimpleNamespace(offset=len(self.sent)))
        return future

    def poll(self) -> Poll:
        """The first pack of shard 0, fetched now."""
        poll = Poll(self.log, self.epoch, 1)
        poll.add(TP(self.log, 0), records(pack(0, 1)), 1)
        return poll


def test_a_poll_of_before_a_seek_takes_no_step(offline_settings: Settings) -> None:
    """It waited while all was settled for the next epoch: the shard is left as it is, and the next poll steps."""

    async def run() -> None:
        rig = Rig(offline_settings)
        await rig.host.settle({0: 0})
        rig.work.told = {TP(rig.log, 0): 9}  # so nothing is published
        late = rig.poll()
        async with rig.work._busy:
            handled = asyncio.ensure_future(rig.work.handle(late))
            await asyncio.sleep(0)
            rig.epoch += 1
            await rig.host.settle({0: 0}, unbroken=True)
        assert not await handled
        assert rig.host.position(0) == (0, {})
        assert await rig.work.handle(rig.poll())
        assert rig.host.position(0) == (1, {"in:0": 0})
        await rig.host.close()

    asyncio.run(run())


def test_what_is_held_back_is_counted(offline_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of all steps are added up, and the largest effect that one of them found is on the metrics page."""
    effects = iter([(7, 0.0), (5, 0.25), (3, 0.125), (0, 0.0)])

    def process(_shard: Served, *_: Any, **_named: Any) -> Outcome:
        held, effect = next(effects)
        return Outcome(held=held, effect=effect)

    async def run() -> bytes:
        rig = Rig(offline_settings)
        await rig.host.settle({0: 0})
        rig.work.told = {TP(rig.log, 0): 9}  # so nothing is published
        for number in range(4):
            poll = Poll(rig.log, rig.epoch, 1 + number)
            poll.add(TP(rig.log, 0), records(pack(number, 1), first=number), number + 1)
            assert await rig.work.handle(poll)
        await rig.host.close()
        return rig.work._metrics.text()

    monkeypatch.setattr(Served, "process", process)
    text = asyncio.run(run())
    assert b"groundswell_tolerance_held_rows_total 15.0\n" in text
    assert b"groundswell_tolerance_effect 0.25\n" in text


def test_nobody_speaks_for_a_shard_that_went_away(offline_settings: Settings) -> None:
    """Neither a repetition that was meant for later nor a hello says anything in another owner's place."""
    begun: list[int] = []

    async def begin(partition: int, **_named: Any) -> None:
        begun.append(partition)

    async def run() -> None:
        rig = Rig(offline_settings)
        await rig.host.settle({0: 0, 1: 0})
        await rig.host.settle({1: 0}, unbroken=True)
        worker: Any = SimpleNamespace(
            host=rig.host, readiness=SimpleNamespace(stopping=False), _greetings=set(), _begin=begin
        )
        for partition in (0, 1):
            Worker._repeat(worker, partition)
        await asyncio.gather(*worker._greetings)
        assert begun == [1]
        with pytest.raises(StaleStep):
            await rig.work.begin(0)
        assert rig.sent == []
        await rig.work.begin(1)
        assert rig.sent == [(rig.halos, 1)]
        await rig.host.close()

    asyncio.run(run())


def test_a_refused_hello_hides_no_switch(offline_settings: Settings) -> None:
    """Whatever becomes of its hello, that a shard went over is told once, and so what it owes; then it says so."""
    switched: list[int] = []
    said: list[str] = []

    async def say(message: Message) -> None:
        said.append(message.key)

    async def run() -> None:
        rig, new, notices = Rig(offline_settings), SimpleNamespace(version="new"), Notices()
        notices.use = Order("x", "new", 1, "")
        await rig.host.settle({0: 0})
        board: Any = SimpleNamespace(notices=notices)
        make: Any = None
        configured: Any = new
        following = Switching(board, rig.host, rig.work, make, configured, "w0", say, switched.append)
        successor: Any = SimpleNamespace(
            artifact=new, shard=rig.shards[0], checked=True, take_over=lambda shard: setattr(shard, "artifact", new)
        )
        following._successors[0] = successor
        rig.refuses = True
        with pytest.raises(Refused):
            await following.follow()
        assert (switched, said) == ([0], [])
        rig.refuses = False
        await following.follow()
        assert (switched, said) == ([0], ["shard/0"])
        await rig.host.close()

    asyncio.run(run())
