"""Where the lease bites: aiokafka's producer asks it at the socket, aiokafka's consumer renews it.

A batch carries the epoch of the poll that it follows from. Whatever delayed it (a full queue, a
broker that was away, a process that was stopped), it is refused with `Refused` unless the lease
holds and the epoch is the present one at the moment at which its request is handed to the socket.

Each epoch has a producer id of its own. Refused batches leave a gap in the sequence numbers that
Kafka would not forgive, and the log shows by itself who wrote what.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import aiokafka
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import MessageAccumulator
from aiokafka.producer.sender import Sender, SendProduceReqHandler
from aiokafka.producer.transaction_manager import NO_PRODUCER_EPOCH, NO_PRODUCER_ID, PidAndEpoch
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest
from aiokafka.util import create_future

from streams.errors import LeaseLost
from streams.kafka.lease import Lease

log = logging.getLogger(__name__)

EPOCH: ContextVar[int | None] = ContextVar("epoch", default=None)
"""The epoch of the poll that is in work; what is sent without one belongs to the epoch in which it is sent."""
BEGUN = "the group may have given our partitions away; nothing of what was begun is written"

RETRY_MS = 100
_UNKNOWN_MEMBER, _ILLEGAL_GENERATION, _FENCED_INSTANCE = 25, 22, 82


class Refused(KafkaError, LeaseLost):
    """A message that came too late to be written."""


class LeasedAccumulator(MessageAccumulator):
    """aiokafka's queue of batches; each batch is of one epoch."""

    def __init__(self, lease: Lease, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._lease = lease

    def _epoch(self) -> int:
        epoch = EPOCH.get()
        return self._lease.epoch if epoch is None else epoch

    def _append_batch(self, builder: Any, tp: Any) -> Any:
        batch = super()._append_batch(builder, tp)
        batch.epoch = self._epoch()
        return batch

    async def add_message(self, tp: Any, *arguments: Any, **named: Any) -> Any:
        """Queue a message; a batch of another epoch takes no more."""
        waiting = self._batches.get(tp)
        if waiting and waiting[-1].epoch != self._epoch():
            waiting[-1]._builder.close()  # noqa: SLF001 - as aiokafka does with a full one
        return await super().add_message(tp, *arguments, **named)


class LeasedSender(Sender):
    """aiokafka's loop that takes batches to the sockets."""

    def __init__(self, lease: Lease, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.lease = lease
        self._id_epoch = -1

    @property
    def in_flight(self) -> bool:
        """Whether a request waits for its answer."""
        return bool(self._in_flight)

    async def _maybe_wait_for_pid(self) -> None:
        if self._id_epoch != self.lease.epoch:
            self._id_epoch = self.lease.epoch
            manager = self._txn_manager
            manager._pid_and_epoch = PidAndEpoch(NO_PRODUCER_ID, NO_PRODUCER_EPOCH)  # noqa: SLF001
            manager._pid_waiter = create_future()  # noqa: SLF001
            manager._sequence_numbers.clear()  # noqa: SLF001
        await super()._maybe_wait_for_pid()

    async def _send_produce_req(self, node_id: int, batches: dict[Any, Any]) -> None:
        await LeasedHandler(self, dict(batches)).do(node_id)
        # As aiokafka does it.
        self._in_flight.remove(node_id)
        for tp in batches:
            self._muted_partitions.remove(tp)


class LeasedHandler(SendProduceReqHandler):
    """One produce request; the last question before the socket is asked here."""

    def _refuse(self) -> None:
        """Fail the batches whose time is over."""
        lease = self._sender.lease
        for tp, batch in list(self._batches.items()):
            if not lease.holds(batch.epoch):
                del self._batches[tp]
                batch.failure(exception=Refused(BEGUN))

    async def do(self, node_id: int) -> None:
        """Send what may be sent and wait for the answer."""
        self._refuse()
        if not self._batches:
            return
        client, key = self._client, (node_id, ConnectionGroup.DEFAULT)
        # To connect may take long. What is connected is asked again by `super().do`, which answers
        # at once: from the question below to the socket there is no other turn of the loop.
        if not (await client.ready(node_id) and client._conns[key].connected()):  # noqa: SLF001
            await self._try_again()
            return
        self._refuse()
        if self._batches:
            await super().do(node_id)

    async def _try_again(self) -> None:
        """Back into the queue, as aiokafka does after an error that may pass."""
        await asyncio.sleep(self._default_backoff)
        for batch in self._batches.values():
            self._sender._message_accumulator.reenqueue(batch)  # noqa: SLF001
        await self._client._maybe_wait_metadata()  # noqa: SLF001


class LeasedProducer(aiokafka.AIOKafkaProducer):
    """An idempotent producer that writes only under a lease.

    Args:
        lease: what every message is sent under.
        max_batch_size: bytes, as for aiokafka's own.
        request_timeout_ms: as for aiokafka's own.
        named: as for aiokafka's own; idempotence, acknowledgements and no compression are set here.
    """

    def __init__(self, lease: Lease, *, max_batch_size: int, request_timeout_ms: int, **named: Any) -> None:
        super().__init__(
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=max_batch_size,
            request_timeout_ms=request_timeout_ms,
            retry_backoff_ms=RETRY_MS,
            **named,
        )
        self._lease = lease
        # aiokafka makes these itself and takes no others; nothing has started yet.
        self._message_accumulator = LeasedAccumulator(
            lease,
            self._metadata,
            max_batch_size,
            0,
            request_timeout_ms / 1_000,
            txn_manager=self._txn_manager,
            loop=self._loop,
        )
        self._sender: LeasedSender = LeasedSender(
            lease,
            self.client,
            acks=-1,
            txn_manager=self._txn_manager,
            retry_backoff_ms=RETRY_MS,
            message_accumulator=self._message_accumulator,
            request_timeout_ms=request_timeout_ms,
        )

    async def send(self, *arguments: Any, **named: Any) -> Any:
        """As aiokafka's; what times out because Kafka is away is refused like all else that comes too late.

        Raises:
            Refused: the lease is over.
        """
        return await self._under_lease(super().send, *arguments, **named)

    async def send_batch(self, *arguments: Any, **named: Any) -> Any:
        """The same for a whole batch."""
        return await self._under_lease(super().send_batch, *arguments, **named)

    async def _under_lease(self, send: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        epoch = EPOCH.get()
        if not self._lease.holds(epoch):
            raise Refused(BEGUN)
        try:
            return await send(*arguments, **named)
        except KafkaError as error:
            if self._lease.holds(epoch):
                raise
            raise Refused(BEGUN) from error

    async def settled(self, timeout_s: float) -> bool:
        """Wait until no request is on its way; False: one still was after that time."""
        end_s = self._lease.clock() + timeout_s
        while self._sender.in_flight:
            if self._lease.clock() >= end_s:
                return False
            await asyncio.sleep(0.005)
        return True


def watch(consumer: aiokafka.AIOKafkaConsumer, lease: Lease, instance: str, taken: Callable[[], None]) -> None:
    """Keep the lease by what the group answers this consumer.

    Args:
        consumer: one that has not been started.
        lease: what is granted, renewed and ended.
        instance: our name in the group, if it is static.
        taken: told when another member has taken that name; it is not taken back then.
    """
    client = consumer._client  # noqa: SLF001 - aiokafka has no hook for any of this
    send = client.send

    async def watched(node_id: int, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        sent_s = lease.clock()
        response = await send(node_id, request, group=group)
        if not isinstance(request, HeartbeatRequest | JoinGroupRequest | SyncGroupRequest):
            return response
        code = response.error_code
        if code == 0 and isinstance(request, SyncGroupRequest):
            lease.grant(sent_s)
        elif code == 0 and isinstance(request, HeartbeatRequest):
            if not lease.renew(sent_s):
                log.warning("heard from the group after the lease had lapsed: joining anew")
                consumer._coordinator.request_rejoin()  # noqa: SLF001
        elif code in {_UNKNOWN_MEMBER, _ILLEGAL_GENERATION, _FENCED_INSTANCE}:
            in_time = lease.end()
            log.warning("the group goes on without us: joining anew", extra={"code": code, "in_time": in_time})
            # Who is forgotten in time was not forgotten for being late.
            if instance and (code == _FENCED_INSTANCE or (code == _UNKNOWN_MEMBER and in_time)):
                taken()
                # aiokafka would join under that name again, and the two would take it from each other for ever.
                raise KafkaError("our name in the group was taken")
        return response

    client.send = watched
