"""The lease, and the messages that a producer under it writes to a real broker."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest

from streams.embedded import EmbeddedKafka
from streams.errors import LeaseLost, StateError
from streams.kafka.lease import MARGIN, Lease
from streams.kafka.leased_client import EPOCH, LeasedProducer, maintain_lease
from streams.kafka.topics import TopicSpec, admin, create
from streams.settings.connection import aiokafka_arguments
from streams.settings.settings import Settings
from streams.telemetry.liveness import CONSUMER, SHARDS, Liveness
from streams.worker import data_dir
from tests.support import brokerlog

SESSION_S = 6.0


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now_s


def test_a_lease_counts_from_the_sending() -> None:
    """A lease holds for the session timeout less the margin, from the last request that was answered."""
    clock = Clock()
    lease = Lease(SESSION_S, clock)
    assert not lease.holds()
    lease.grant(clock.now_s - 1)
    clock.now_s += SESSION_S * (1 - MARGIN) - 1.01
    assert lease.holds()
    assert lease.renew(clock.now_s)
    clock.now_s += 4
    assert lease.holds()
    clock.now_s += 1
    assert not lease.holds()


def test_a_worker_that_stops_asks_for_no_rejoin() -> None:
    """After `leave` a heartbeat on an ended lease grants nothing and asks for no rejoin."""
    clock = Clock()
    lease = Lease(SESSION_S, clock)
    lease.grant(clock())
    lease.leave()
    assert lease.holds()
    lease.end()
    assert lease.renew(clock())
    lease.grant(clock())
    assert not lease.holds()


def test_a_lapsed_lease_is_not_renewed() -> None:
    """After a lease has lapsed, only a join grants it again; a heartbeat does not."""
    clock = Clock()
    lease = Lease(SESSION_S, clock)
    lease.grant(clock.now_s)
    clock.now_s += SESSION_S
    assert not lease.holds()
    assert not lease.renew(clock.now_s)
    assert not lease.holds()
    lease.grant(clock.now_s)
    assert lease.holds()


def test_an_epoch_that_is_over_stays_over() -> None:
    """Work from before a seek or a revocation is refused under the next lease too."""
    lease = Lease(SESSION_S, Clock())
    lease.grant(1_000.0)
    assert lease.holds(0)
    assert lease.end()
    assert not lease.end()
    lease.begin_epoch()
    lease.grant(1_000.0)
    assert lease.holds(1)
    assert not lease.holds(0)


def test_nothing_is_allowed_between_a_revocation_and_the_seek() -> None:
    """A lease that the group grants again before the seek allows no work: neither of the old epoch nor without one."""
    lease = Lease(SESSION_S, Clock())
    lease.grant(1_000.0)
    lease.end()
    lease.end_epoch()
    lease.grant(1_000.0)
    between = lease.epoch
    assert not lease.holds()
    assert not lease.holds(between)
    lease.begin_epoch()
    assert lease.holds()
    assert not lease.holds(between)


class Group:
    """A consumer whose group responds with the code that the test sets."""

    def __init__(self) -> None:
        self.code = 0
        self.rejoins = 0
        self._client = SimpleNamespace(send=self._answer)
        self._coordinator = SimpleNamespace(request_rejoin=self._rejoin)

    async def _answer(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(error_code=self.code)

    def _rejoin(self) -> None:
        self.rejoins += 1

    async def ask(self, request: Any) -> None:
        """Send a request as aiokafka's coordinator would."""
        await self._client.send(1, request)


def test_the_group_grants_renews_and_ends() -> None:
    """A sync grants, a heartbeat renews, one during a rebalance does not, and `unknown member` ends the lease."""
    clock, group, taken = Clock(), Group(), [0]
    lease = Lease(SESSION_S, clock)
    maintain_lease(group, lease, "", lambda: taken.append(1))
    heartbeat = HeartbeatRequest("g", 1, "m")

    async def story() -> None:
        await group.ask(SyncGroupRequest("g", 1, "m", "", []))
        clock.now_s += 4
        await group.ask(heartbeat)
        clock.now_s += 4
        assert lease.holds()
        group.code = 27  # rebalance in progress
        await group.ask(heartbeat)
        clock.now_s += 1
        assert not lease.holds()
        group.code = 0
        await group.ask(heartbeat)
        assert group.rejoins == 1
        assert not lease.holds()
        await group.ask(SyncGroupRequest("g", 2, "m", "", []))
        assert lease.holds()
        group.code = 25
        await group.ask(heartbeat)
        assert not lease.holds()

    asyncio.run(story())
    assert taken == [0]


def test_a_static_name_is_not_joined_again_after_another_member_has_it() -> None:
    """A member that is removed while its lease holds has lost its static name to another member."""
    clock, group, taken = Clock(), Group(), [0]
    lease = Lease(SESSION_S, clock)
    maintain_lease(group, lease, "w0", lambda: taken.append(1))

    async def story() -> None:
        await group.ask(SyncGroupRequest("g", 1, "m", "w0", []))
        group.code = 25
        with pytest.raises(Exception, match="another member joined the group as w0"):
            await group.ask(HeartbeatRequest("g", 1, "m"))

    asyncio.run(story())
    assert taken == [0, 1]


def test_a_message_is_refused_at_the_socket_after_its_lease(settings: Settings, kafka: EmbeddedKafka) -> None:
    """A message queued under a lease and sent after it is not written; the next epoch has another producer id."""
    name = f"{settings.prefix}leased"
    with admin(settings) as client:
        create(client, [TopicSpec(name, 1, "")])
    clock = Clock()
    lease = Lease(SESSION_S, clock)

    async def story() -> None:
        producer = LeasedProducer(
            lease,
            **aiokafka_arguments(settings),
            max_batch_size=1 << 19,
            max_request_size=1 << 20,
            request_timeout_ms=9_000,
        )
        await producer.start()
        with pytest.raises(LeaseLost):
            await producer.send(name, b"nothing was granted")
        lease.grant(clock.now_s)
        EPOCH.set(lease.epoch)
        await (await producer.send(name, b"first", partition=0))
        late = await producer.send(name, b"late", partition=0)
        clock.now_s += SESSION_S  # as a stopped process finds it when it goes on
        with pytest.raises(LeaseLost):
            await late
        queued = await asyncio.gather(producer.send(name, b"later", partition=0), return_exceptions=True)
        assert isinstance(queued[0], LeaseLost)
        lease.begin_epoch()
        lease.grant(clock.now_s)
        with pytest.raises(LeaseLost):
            await producer.send(name, b"of an epoch that is over", partition=0)
        EPOCH.set(lease.epoch)
        await (await producer.send(name, b"second", partition=0))
        old = await producer.send(name, b"old", partition=0)
        lease.begin_epoch()
        EPOCH.set(lease.epoch)
        new = await producer.send(name, b"new", partition=0)
        with pytest.raises(LeaseLost):
            await old
        await new
        batch = producer.create_batch()
        batch.append(key=None, value=b"batch", timestamp=None)
        late = await producer.send_batch(batch, name, partition=0)
        clock.now_s += SESSION_S
        with pytest.raises(LeaseLost):
            await late
        with pytest.raises(LeaseLost):
            await producer.send_batch(producer.create_batch(), name, partition=0)
        assert await producer.drain(1.0)
        await producer.stop()

    asyncio.run(story())
    written = list(brokerlog.records(kafka.folder, name, 0))
    assert [record.value for _, record in written] == [b"first", b"second", b"new"]
    assert len({producer for producer, _ in written}) == 3


def test_a_request_that_was_being_built_as_the_lease_ended_is_not_written(
    settings: Settings, kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is stopped between the first check and the socket writes nothing, and can write again later."""
    name = f"{settings.prefix}built"
    with admin(settings) as client:
        create(client, [TopicSpec(name, 1, "")])
    clock = Clock()
    lease = Lease(SESSION_S, clock)
    stopped: list[bool] = []

    def stopped_while_building(handler: SendProduceReqHandler) -> Any:
        request = built(handler)
        if not stopped:
            stopped.append(True)
            clock.now_s += SESSION_S
        return request

    built = SendProduceReqHandler.create_request
    monkeypatch.setattr(SendProduceReqHandler, "create_request", stopped_while_building)

    async def story() -> None:
        producer = LeasedProducer(
            lease,
            **aiokafka_arguments(settings),
            max_batch_size=1 << 19,
            max_request_size=1 << 20,
            request_timeout_ms=9_000,
        )
        await producer.start()
        lease.grant(clock.now_s)
        EPOCH.set(lease.epoch)
        late = await producer.send(name, b"late", partition=0)
        with pytest.raises(LeaseLost):
            await late
        lease.begin_epoch()
        lease.grant(clock.now_s)
        EPOCH.set(lease.epoch)
        await (await producer.send(name, b"next", partition=0))
        await producer.stop()

    asyncio.run(story())
    assert stopped
    assert [record.value for _, record in brokerlog.records(kafka.folder, name, 0)] == [b"next"]


def test_nobody_returns_in_a_log() -> None:
    """The check of a log finds a producer that writes again after another; a single producer is no finding."""

    def log(*producers: int) -> Any:
        return iter([(producer, SimpleNamespace(offset=offset)) for offset, producer in enumerate(producers)])

    def one(_: Any) -> list[Any]:
        return [0]

    assert brokerlog.late_writes(log(1, 1, 2, 2, 3), one) == []
    assert brokerlog.late_writes(log(1, 2, 1, 2), one) == [(1, 2), (2, 3)]


def test_silent_threads_are_named() -> None:
    """Each thread has its maximum time without a sign, counted from its first sign."""
    clock = Clock()
    liveness = Liveness({CONSUMER: 30.0, SHARDS: 300.0}, clock)
    clock.now_s += 1_000
    assert liveness.stalled() == ""
    liveness.report(CONSUMER)
    liveness.report(SHARDS)
    clock.now_s += 31
    assert CONSUMER in liveness.stalled()
    liveness.report(CONSUMER)
    assert liveness.stalled() == ""
    clock.now_s += 280
    liveness.report(CONSUMER)
    assert SHARDS in liveness.stalled()


def test_one_worker_per_folder_and_none_after_a_kill(tmp_path: Path) -> None:
    """A second process gets an error that names the first; kill -9 of the first frees the folder at once."""
    script = (
        "import sys, time; from pathlib import Path; from streams.worker.data_dir import lock_data_dir; "
        "f = lock_data_dir(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "state")], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(StateError, match=rf"process {child.pid}.*GROUNDSWELL_DATADIR"):
            data_dir.lock_data_dir(tmp_path / "state")
    finally:
        child.kill()
        child.communicate()
    data_dir.lock_data_dir(tmp_path / "state").close()
