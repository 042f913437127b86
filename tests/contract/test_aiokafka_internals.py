"""The installed aiokafka has the private parts that the worker uses; a new version has to be read first."""

from __future__ import annotations

import inspect
import re

import aiokafka
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import Assignment, SubscriptionState
from aiokafka.producer import message_accumulator
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator, MessageBatch
from aiokafka.producer.sender import Sender, SendProduceReqHandler
from aiokafka.producer.transaction_manager import TransactionManager
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka import aiokafka_internals
from streams.kafka.record_batch import RecordBatch, record_batches
from streams.messages.outputs import MessageColumns

USED: dict[type, tuple[str, ...]] = {
    aiokafka.AIOKafkaConsumer: ("_client", "_closed", "_coordinator", "_fetcher", "_subscription"),
    GroupCoordinator: (
        "_push_error_to_user",
        "_coordination_task",
        "_closing",
        "generation",
        "request_rejoin",
        "fetch_committed_offsets",
    ),
    Fetcher: ("_fetch_task", "_pending_tasks", "_prefetch_backoff"),
    AIOKafkaClient: (
        "_conns",
        "_maybe_wait_metadata",
        "_sync_task",
        "cluster",
        "close",
        "force_metadata_update",
        "send",
    ),
    AIOKafkaConnection: ("_writer", "connected"),
    SubscriptionState: ("subscription",),
    Assignment: ("state_value",),
    aiokafka.AIOKafkaProducer: ("_loop", "_message_accumulator", "_metadata", "_sender", "_txn_manager"),
    MessageAccumulator: ("_append_batch", "_batches", "reenqueue"),
    MessageBatch: ("_builder", "failure"),
    Sender: (
        "_in_flight",
        "_maybe_wait_for_pid",
        "_message_accumulator",
        "_muted_partitions",
        "_send_produce_req",
        "_txn_manager",
    ),
    SendProduceReqHandler: ("_batches", "_client", "_default_backoff", "_sender", "create_request", "do"),
    TransactionManager: ("_pid_and_epoch", "_pid_waiter", "_sequence_numbers"),
}
"""The private attributes that are read, replaced or overridden, by their class."""


def test_the_version_was_checked() -> None:
    """After an update of aiokafka, read the classes below again, then set the new version."""
    assert aiokafka.__version__ == aiokafka_internals.CHECKED_VERSION


@pytest.mark.parametrize(
    ("owner", "name"),
    [pytest.param(owner, name, id=f"{owner.__name__}.{name}") for owner in USED for name in USED[owner]],
)
def test_it_exists(owner: type, name: str) -> None:
    """The class or one of its bases has the attribute, or assigns it to its instances."""
    sources = [inspect.getsource(base) for base in owner.__mro__[:-1]]
    assigned = re.compile(rf"self\.{name}(?:, self\.\w+)*(?::[^=\n]+)? = ")
    assert hasattr(owner, name) or any(map(assigned.search, sources))


TEXT = st.binary(max_size=300)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=140), st.binary(max_size=20))
def test_batches_are_those_of_the_builder(rows: list[tuple[bytes, bytes, bytes]], constant: bytes) -> None:
    """A batch that compiled code writes has the bytes of aiokafka's builder, with any producer id."""
    keys, values, others = (list(column) for column in zip(*rows, strict=True))
    columns = MessageColumns(keys, values, [("é", constant), ("b", others), ("c", values), ("d", b"")])
    ((partition, batch),) = record_batches(columns, [3] * len(rows), 1_714_564_800_000, 1 << 20)
    builder = BatchBuilder(1 << 20, 0)
    for key, value, other in rows:
        headers = [("é", constant), ("b", other), ("c", value), ("d", b"")]
        builder.append(timestamp=1_714_564_800_000, key=key, value=value, headers=headers)
    for each in (batch, builder):
        each._set_producer_state(7, 3, 11)
    assert partition == 3
    assert batch._build() == builder._build()
    assert batch.record_count() == builder.record_count()
    assert batch.size() == len(batch._build())


def test_a_batch_has_the_methods_of_the_builder() -> None:
    """Aiokafka calls no other method of a batch than those of its own builder."""
    used = set(re.findall(r"(?:builder|_builder)\.(\w+)\(", inspect.getsource(message_accumulator)))
    used -= {"set_producer_state", "build"}  # of the builder in the builder
    assert {name for name in used if not hasattr(RecordBatch, name)} == set()
