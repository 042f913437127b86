"""The identity of a topic, stored beside each offset, and where reading starts after the topic has changed.

An offset does not show whether its topic is still the topic that was read. So each offset is stored with:

* the id that Kafka gave to the topic (KIP-516): a topic that was deleted and created again has another id;
* an incarnation, a number that rises when the topic is read from its beginning because its log was cut back;
* the id of the mutations topic that received the messages: after a change of that topic they are sent again.

The group stores all three as the metadata of each commit; the sources of a shard's marks hold the first two. Brokers
before Kafka 2.8 have no topic ids: ids are empty then, and only offsets can be compared.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

VERSION = "1"
_NOTE = re.compile(r"1 topic=([\w-]*) incarnation=(\d{1,18}) log=([\w-]*)")

MADE_ANEW = "made_anew"
CUT_BACK = "cut_back"
OTHER_LOG = "other_log"
UNREAD = "unread"
REASONS = (MADE_ANEW, CUT_BACK, OTHER_LOG, UNREAD)
"""Why reading of a partition does not continue at the committed offset."""
UNKNOWN = -1
"""The number of partitions of a topic that Kafka did not describe."""


class TopicState(NamedTuple):
    """A topic as Kafka describes it now.

    Attributes:
        id: the topic's id; empty if unknown.
        partitions: the number of partitions; 0 if the topic does not exist, `UNKNOWN` if Kafka did not describe it.
    """

    id: str
    partitions: int


def id_text(raw: bytes) -> str:
    """Encode the 16 bytes of a topic id as text; the id of no topic (zeros) becomes an empty string."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=") if any(raw) else ""


class Committed(NamedTuple):
    """An offset that the group committed, with its metadata; -1 if it committed none."""

    offset: int
    note: str = ""


@dataclass(frozen=True)
class Identity:
    """The identity of one partition.

    Attributes:
        topic: the id of the partition's topic; empty if unknown.
        incarnation: how often the topic was read from its beginning because its log was cut back.
        log: the id of the mutations topic; empty if unknown.
    """

    topic: str = ""
    incarnation: int = 0
    log: str = ""

    def note(self) -> str:
        """Encode the identity as the metadata of a commit."""
        return f"{VERSION} topic={self.topic} incarnation={self.incarnation} log={self.log}"

    def source(self, topic: str, partition: int) -> str:
        """Return the source of a segment: `topic#id+incarnation:partition` without an unknown id or incarnation 0."""
        incarnation = f"+{self.incarnation}" if self.incarnation else ""
        mark = f"#{self.topic}{incarnation}" if self.topic or incarnation else ""
        return f"{topic}{mark}:{partition}"


def read_note(text: str) -> Identity | None:
    """Decode the metadata of a commit; None if an earlier release or another tool wrote it."""
    fields = _NOTE.fullmatch(text)
    return Identity(fields[1], int(fields[2]), fields[3]) if fields else None


def source_partition(source: str) -> str:
    """Return `topic:partition` of a source, without the identity."""
    name, colon, partition = source.rpartition(":")
    return f"{name.partition('#')[0]}{colon}{partition}"


@dataclass(frozen=True)
class Start:
    """The start of reading of a partition.

    Attributes:
        offset: the first offset to read.
        identity: the partition's identity from now on.
        why: one of `REASONS` if reading does not continue at the committed offset; else empty.
    """

    offset: int
    identity: Identity
    why: str = ""

    @property
    def held(self) -> Committed:
        """The start as a commit of the group."""
        return Committed(self.offset, self.identity.note())


def start(held: Committed, topic: str, log: str, begin: int, end: int) -> Start:
    """Decide where reading of an input partition starts.

    Args:
        held: the commit of the group.
        topic: the topic's id now, empty if unknown.
        log: the id of the mutations topic, empty if unknown.
        begin: the first offset that Kafka has.
        end: the offset after the last message.
    """
    noted = read_note(held.note)
    before = noted or Identity()
    now = Identity(topic or before.topic, before.incarnation, log or before.log)
    if held.offset < 0:
        return Start(begin, now)
    if before.topic and now.topic != before.topic:
        return Start(begin, Identity(now.topic, 0, now.log), MADE_ANEW)
    if held.offset > end:
        return Start(begin, Identity(now.topic, before.incarnation + 1, now.log), CUT_BACK)
    if before.log and now.log != before.log:
        return Start(begin, now, OTHER_LOG)
    if 0 < held.offset < begin:
        return Start(begin, now, UNREAD)
    return Start(max(held.offset, begin), now)


def published_position(held: Committed, log: str, end: int) -> Committed:
    """Return the offset of the mutations topic up to which a shard's outputs are published.

    Args:
        held: the commit of the group of the mutations topic.
        log: the topic's id now, empty if unknown.
        end: the offset after the last message.

    Returns:
        The committed offset; 0 if it was committed of another topic with the same name.
    """
    before = read_note(held.note)
    now = Identity(log or (before.topic if before else ""))
    other = before is not None and before.topic and before.topic != now.topic
    offset = 0 if other or held.offset > end else max(held.offset, 0)
    return Committed(offset, now.note())


def replaced_topics(before: Mapping[str, TopicState], now: Mapping[str, TopicState]) -> list[str]:
    """Return the sorted names of topics that have another id than before; missing and unknown topics are left out."""
    return sorted(
        name
        for name, state in now.items()
        if state.partitions > 0 and state.id and before.get(name, state).id not in {"", state.id}
    )
