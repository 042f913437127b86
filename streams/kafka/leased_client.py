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
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest

from streams.errors import LeaseLost
from streams.kafka import aiokafka_internals
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


class LeaseGate:
    """A lease as `aiokafka_internals` asks for it: which messages may be written now."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    @property
    def epoch(self) -> int:
        """The present epoch of the lease."""
        return self._lease.epoch

    def message_epoch(self) -> int:
        """Return the epoch of a message that is queued now."""
        epoch = EPOCH.get()
        return self._lease.epoch if epoch is None else epoch

    def holds(self, epoch: int) -> bool:
        """Return whether messages of an epoch may be written now."""
        return self._lease.holds(epoch)

    def refusal(self) -> Refused:
        """Return the error of a message that may not be written."""
        return Refused(LEASE_OVER)


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
        aiokafka_internals.gate_writes(
            self,
            LeaseGate(lease),
            max_batch_size=max_batch_size,
            request_timeout_ms=request_timeout_ms,
            retry_backoff_ms=RETRY_MS,
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
        while aiokafka_internals.requests_in_flight(self):
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
