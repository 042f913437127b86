"""aiokafka's producer and consumer under a lease: the producer checks it at the socket, the consumer renews it.

A batch carries the epoch of the poll that it follows from. Whatever delayed it (a full queue, an unreachable
broker, a stopped process), it fails with `Refused` unless the lease holds and the epoch is the present one at the
moment at which its request is written to the socket.

Each epoch has a producer id of its own: refused batches leave a gap in the sequence numbers, which Kafka rejects
within one producer id. The ids also show in the log which worker wrote a record.
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
from streams.kafka.aiokafka_internals import Send, request_rejoin, wrap_send
from streams.kafka.lease import Lease

log = logging.getLogger(__name__)

EPOCH: ContextVar[int | None] = ContextVar("epoch", default=None)
"""Epoch of the poll in work; a message sent without one belongs to the epoch in which it is sent."""
LEASE_OVER = "the lease is over: the group may have assigned the partitions to another worker, so nothing is written"

RETRY_MS = 100
REQUEST_MS = 40_000
"""Maximum duration of a request of the consumer and the producer."""
METADATA_MS = 60_000
"""Maximum age of a client's metadata; changes are noticed earlier (`streams/worker/group/topic_watch.py`)."""
_UNKNOWN_MEMBER, _ILLEGAL_GENERATION, _FENCED_INSTANCE = 25, 22, 82


class Refused(KafkaError, LeaseLost):
    """A message was not written because its lease is over."""


class LeasedAccumulator(MessageAccumulator):
    """aiokafka's queue of batches; each batch belongs to one epoch."""

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
        """Queue a message; a batch of another epoch is closed first."""
        waiting = self._batches.get(tp)
        if waiting and waiting[-1].epoch != self._epoch():
            waiting[-1]._builder.close()  # noqa: SLF001 - as aiokafka does with a full batch
        return await super().add_message(tp, *arguments, **named)


class LeasedSender(Sender):
    """aiokafka's loop that sends batches, with a producer id per epoch."""

    def __init__(self, lease: Lease, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.lease = lease
        self._id_epoch = -1

    @property
    def in_flight(self) -> bool:
        """Whether a request waits for its response."""
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
        # As in aiokafka.
        self._in_flight.remove(node_id)
        for tp in batches:
            self._muted_partitions.remove(tp)


class LeasedHandler(SendProduceReqHandler):
    """One produce request, with the last check of the lease before the socket."""

    def _refuse(self) -> None:
        """Fail the batches whose lease or epoch is over."""
        lease = self._sender.lease
        for tp, batch in list(self._batches.items()):
            if not lease.holds(batch.epoch):
                del self._batches[tp]
                batch.failure(exception=Refused(LEASE_OVER))

    async def do(self, node_id: int) -> None:
        """Send the batches whose lease holds and wait for the response."""
        self._refuse()
        if not self._batches:
            return
        client, key = self._client, (node_id, ConnectionGroup.DEFAULT)
        # Connecting may take long, so it is done first. On a connected socket `super().do` does not suspend: no other
        # task runs between the check below and the write.
        if not (await client.ready(node_id) and client._conns[key].connected()):  # noqa: SLF001
            await self._requeue()
            return
        self._refuse()
        if self._batches:
            await super().do(node_id)

    async def _requeue(self) -> None:
        """Queue the batches again, as aiokafka does after a retriable error."""
        await asyncio.sleep(self._default_backoff)
        for batch in self._batches.values():
            self._sender._message_accumulator.reenqueue(batch)  # noqa: SLF001
        await self._client._maybe_wait_metadata()  # noqa: SLF001


class LeasedProducer(aiokafka.AIOKafkaProducer):
    """An idempotent producer that writes only under a lease.

    Args:
        lease: the lease under which every message is sent.
        max_batch_size: maximum bytes of a batch, as for `AIOKafkaProducer`.
        request_timeout_ms: as for `AIOKafkaProducer`.
        named: other arguments of `AIOKafkaProducer`; idempotence, acknowledgements and no compression are set here.
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
        # aiokafka has no parameters for these two; nothing has started yet, so they are replaced.
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
        """Queue a message as aiokafka does.

        Raises:
            Refused: the lease is over, or ended during a request that failed.
        """
        return await self._under_lease(super().send, *arguments, **named)

    async def send_batch(self, *arguments: Any, **named: Any) -> Any:
        """Queue a whole batch as aiokafka does.

        Raises:
            Refused: as for `send`.
        """
        return await self._under_lease(super().send_batch, *arguments, **named)

    async def _under_lease(self, send: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        epoch = EPOCH.get()
        if not self._lease.holds(epoch):
            raise Refused(LEASE_OVER)
        try:
            return await send(*arguments, **named)
        except KafkaError as error:
            if self._lease.holds(epoch):
                raise
            raise Refused(LEASE_OVER) from error

    async def drain(self, timeout_s: float) -> bool:
        """Wait until no request is in flight; False if one still was at the timeout."""
        end_s = self._lease.clock() + timeout_s
        while self._sender.in_flight:
            if self._lease.clock() >= end_s:
                return False
            await asyncio.sleep(0.005)
        return True


def maintain_lease(
    consumer: aiokafka.AIOKafkaConsumer, lease: Lease, instance: str, on_name_taken: Callable[[], None]
) -> None:
    """Grant, renew and end the lease by the responses that the group sends to this consumer.

    Args:
        consumer: a consumer that has not been started.
        lease: the lease of the worker.
        instance: the worker's static member name in the group; empty if it has none.
        on_name_taken: called when another member has joined under that name; this consumer does not join again then.
    """

    def wrap(send: Send) -> Send:
        async def send_and_observe(node_id: int, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
            sent_s = lease.clock()
            response = await send(node_id, request, group=group)
            if not isinstance(request, HeartbeatRequest | JoinGroupRequest | SyncGroupRequest):
                return response
            code = response.error_code
            if code == 0 and isinstance(request, SyncGroupRequest):
                lease.grant(sent_s)
            elif code == 0 and isinstance(request, HeartbeatRequest):
                if not lease.renew(sent_s):
                    log.warning("lease_lapsed_rejoining")
                    request_rejoin(consumer)
            elif code in {_UNKNOWN_MEMBER, _ILLEGAL_GENERATION, _FENCED_INSTANCE}:
                in_time = lease.end()
                log.warning("removed_from_group_rejoining", extra={"code": code, "lease_held": in_time})
                # A member that is removed while its lease held was not removed for missing heartbeats.
                if instance and (code == _FENCED_INSTANCE or (code == _UNKNOWN_MEMBER and in_time)):
                    on_name_taken()
                    # aiokafka would join under that name again, and the two members would remove each other forever.
                    raise KafkaError(
                        f"another member joined the group as {instance}; give each worker a name of its own"
                    )
            return response

        return send_and_observe

    wrap_send(consumer, wrap)
