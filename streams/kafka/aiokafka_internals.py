"""Access to the parts of aiokafka's consumer and producer that have no public interface.

`tests/contract/test_aiokafka_internals.py` checks that the installed version has them, and fails for a version that was
not checked.
"""
# ruff: noqa: SLF001 - this module is the place for it

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import MessageAccumulator
from aiokafka.producer.sender import Sender, SendProduceReqHandler
from aiokafka.producer.transaction_manager import NO_PRODUCER_EPOCH, NO_PRODUCER_ID, PidAndEpoch
from aiokafka.util import create_future

CHECKED_VERSION = "0.14.0"
"""The version of aiokafka that was read for this module."""

Send = Callable[..., Awaitable[Any]]
"""`send(node_id, request, *, group)` of aiokafka's client."""


def client(consumer: Any) -> Any:
    """Return the client of a consumer, which sends its requests."""
    return consumer._client


def wrap_send(consumer: Any, wrap: Callable[[Send], Send]) -> None:
    """Replace the client's `send` by a function that is made from it; for a consumer that has not been started."""
    consumer._client.send = wrap(consumer._client.send)


def is_closed(consumer: Any) -> bool:
    """Whether the consumer is closed or being closed."""
    return bool(consumer._closed)


def background_tasks(consumer: Any) -> dict[str, asyncio.Future[Any]]:
    """Return the background tasks of a started consumer, by name."""
    return {
        "group": consumer._coordinator._coordination_task,
        "fetch": consumer._fetcher._fetch_task,
        "metadata": consumer._client._sync_task,
    }


# The consumer group


def generation(consumer: Any) -> int:
    """Return the group's generation of the present assignment."""
    return int(consumer._coordinator.generation)


def request_rejoin(consumer: Any) -> None:
    """Rejoin the group, which reassigns all partitions."""
    consumer._coordinator.request_rejoin()


def on_group_error(consumer: Any, handle: Callable[[BaseException], Awaitable[None]]) -> None:
    """Pass errors of the group to a function, instead of to the next call of `getmany`; for a started consumer."""
    consumer._coordinator._push_error_to_user = handle


async def wait_until_closing(consumer: Any, timeout_s: float | None = None) -> None:
    """Wait until the consumer leaves the group, at most for a timeout."""
    await asyncio.wait([consumer._coordinator._closing], timeout=timeout_s)


async def committed_offsets(consumer: Any, keys: list[Any]) -> dict[Any, Any]:
    """Return the commits of the group with their metadata, which the public `committed` drops."""
    commits: dict[Any, Any] = await consumer._coordinator.fetch_committed_offsets(keys)
    return commits


# Fetching


def partition_count(consumer: Any, topic: str) -> int:
    """Return the number of partitions of a topic in the consumer's metadata."""
    return len(consumer._client.cluster.partitions_for_topic(topic) or ())


def set_prefetch_backoff(consumer: Any, seconds: float) -> None:
    """Set the maximum delay of other partitions by one whose records are not taken yet."""
    consumer._fetcher._prefetch_backoff = seconds


def positions(consumer: Any) -> Callable[[Any], int]:
    """Return a function from a partition of the present assignment to the position after its fetched records."""
    assignment = consumer._subscription.subscription.assignment

    def position(tp: Any) -> int:
        return int(assignment.state_value(tp).position)

    return position


async def close_fetches(consumer: Any) -> None:
    """Cancel the fetches and close the client, the rest of a `stop` that was cancelled."""
    fetches = list(consumer._fetcher._pending_tasks)
    for fetch in fetches:
        fetch.cancel()
    await asyncio.gather(*fetches, return_exceptions=True)
    await consumer._client.close()


# The producer


class WriteGate(Protocol):
    """Which messages may be written: each belongs to an epoch, and an epoch ends at any moment."""

    @property
    def epoch(self) -> int:
        """The present epoch."""
        ...

    def message_epoch(self) -> int:
        """Return the epoch of a message that is queued now."""
        ...

    def holds(self, epoch: int) -> bool:
        """Return whether messages of an epoch may be written now."""
        ...

    def refusal(self) -> Exception:
        """Return the error of a message that may not be written."""
        ...


class _GatedAccumulator(MessageAccumulator):
    """aiokafka's queue of batches; each batch belongs to one epoch."""

    def __init__(self, gate: WriteGate, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._gate = gate

    def _append_batch(self, builder: Any, tp: Any) -> Any:
        batch = super()._append_batch(builder, tp)
        batch.epoch = self._gate.message_epoch()
        return batch

    async def add_message(self, tp: Any, *arguments: Any, **named: Any) -> Any:
        """Queue a message; a batch of another epoch is closed first."""
        waiting = self._batches.get(tp)
        if waiting and waiting[-1].epoch != self._gate.message_epoch():
            waiting[-1]._builder.close()  # as aiokafka does with a full batch
        return await super().add_message(tp, *arguments, **named)


class _GatedSender(Sender):
    """aiokafka's loop that sends batches, with a producer id per epoch."""

    def __init__(self, gate: WriteGate, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.gate = gate
        self._id_epoch = -1

    async def _maybe_wait_for_pid(self) -> None:
        if self._id_epoch != self.gate.epoch:
            self._id_epoch = self.gate.epoch
            manager = self._txn_manager
            manager._pid_and_epoch = PidAndEpoch(NO_PRODUCER_ID, NO_PRODUCER_EPOCH)
            manager._pid_waiter = create_future()
            manager._sequence_numbers.clear()
        await super()._maybe_wait_for_pid()

    async def _send_produce_req(self, node_id: int, batches: dict[Any, Any]) -> None:
        await _GatedHandler(self, dict(batches)).do(node_id)
        # As in aiokafka.
        self._in_flight.remove(node_id)
        for tp in batches:
            self._muted_partitions.remove(tp)


class _NotWrittenError(KafkaError):
    """The gate closed while a request was built; its batches are queued again, and refused there one by one."""

    retriable = True


class _GatedHandler(SendProduceReqHandler):
    """One produce request, with the last check of the gate right before the socket."""

    def _refuse(self) -> None:
        """Fail the batches whose epoch does not hold."""
        gate = self._sender.gate
        for tp, batch in list(self._batches.items()):
            if not gate.holds(batch.epoch):
                del self._batches[tp]
                batch.failure(exception=gate.refusal())

    async def do(self, node_id: int) -> None:
        """Send the batches whose epoch holds and wait for the response."""
        self._refuse()
        if not self._batches:
            return
        client, key = self._client, (node_id, ConnectionGroup.DEFAULT)
        # Connecting may take long, so it is done first. On a connected socket `super().do` does not suspend until the
        # request is written.
        if not (await client.ready(node_id) and client._conns[key].connected()):
            await self._requeue()
            return
        self._refuse()
        if not self._batches:
            return
        writer = client._conns[key]._writer
        self._check_next_write(writer)
        try:
            await super().do(node_id)
        finally:
            vars(writer).pop("write", None)

    def _check_next_write(self, writer: asyncio.StreamWriter) -> None:
        """Check the gate once more when the request is written.

        Building it takes milliseconds while other threads hold the interpreter: the process may be stopped there.
        """

        def write(data: bytes | bytearray | memoryview) -> None:
            vars(writer).pop("write")
            if not all(map(self._sender.gate.holds, epochs)):
                raise _NotWrittenError
            writer.write(data)

        epochs = {batch.epoch for batch in self._batches.values()}
        writer.write = write  # type: ignore[method-assign]

    async def _requeue(self) -> None:
        """Queue the batches again, as aiokafka does after a retriable error."""
        await asyncio.sleep(self._default_backoff)
        for batch in self._batches.values():
            self._sender._message_accumulator.reenqueue(batch)
        await self._client._maybe_wait_metadata()


def gate_writes(
    producer: Any, gate: WriteGate, *, max_batch_size: int, request_timeout_ms: int, retry_backoff_ms: int
) -> None:
    """Let a producer write only what the gate allows, checked right before the socket.

    aiokafka has no parameters for its queue and its loop, so both are replaced.

    Args:
        producer: an idempotent producer with all acknowledgements that has not been started.
        gate: assigns an epoch to each message, and accepts the epochs that hold.
        max_batch_size: maximum bytes of a batch.
        request_timeout_ms: maximum duration of a request.
        retry_backoff_ms: pause before a retry.
    """
    producer._message_accumulator = _GatedAccumulator(
        gate,
        producer._metadata,
        max_batch_size,
        0,
        request_timeout_ms / 1_000,
        txn_manager=producer._txn_manager,
        loop=producer._loop,
    )
    producer._sender = _GatedSender(
        gate,
        producer.client,
        acks=-1,
        txn_manager=producer._txn_manager,
        retry_backoff_ms=retry_backoff_ms,
        message_accumulator=producer._message_accumulator,
        request_timeout_ms=request_timeout_ms,
    )


def requests_in_flight(producer: Any) -> bool:
    """Return whether a request of a producer waits for its response."""
    return bool(producer._sender._in_flight)
