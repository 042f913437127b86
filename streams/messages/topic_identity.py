"""What a position points into: the identity of a topic, how it is kept beside an offset, what follows from a change.

An offset alone cannot say whether the topic under it is still the one that was read. So three things travel with it:

* the id that Kafka gave to the topic (KIP-516): a topic that was deleted and made again has another;
* an incarnation, a number that rises when the same topic is read anew because its log was cut back;
* the id of the mutations topic that received what was read: what is in another log has to be sent again.

The group keeps them as the metadata of each commit, a shard's marks name the first two in their source. Brokers before
Kafka 2.8 have no ids: those are empty here, and only offsets can be compared.
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
"""Why a partition is not read on where the group's commit says."""


UNKNOWN = -1


class Found(NamedTuple):
    """What Kafka says of a topic now; id: empty if unknown. partitions: 0 for a topic that is not there, or UNKNOWN."""

    id: str
    partitions: int


def id_text(raw: bytes) -> str:
    """The text of an id; empty for that of no topic."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=") if any(raw) else ""


class Held(NamedTuple):
    """A commit of the group; offset: -1 where there is none."""

    offset: int
    note: str = ""


@dataclass(frozen=True)
class Identity:
    """Of one partition: topic and log are ids, of the topic itself and of the mutations topic."""

    topic: str = ""
    incarnation: int = 0
    log: str = ""

    def note(self) -> str:
        """As the metadata of a commit."""
        return f"{VERSION} topic={self.topic} incarnation={self.incarnation} log={self.log}"

    def source(self, topic: str, partition: int) -> str:
        """As the source of a segment: `topic#id+incarnation:partition`, without what is not known or is 0."""
        anew = f"+{self.incarnation}" if self.incarnation else ""
        mark = f"#{self.topic}{anew}" if self.topic or anew else ""
        return f"{topic}{mark}:{partition}"


def read_note(text: str) -> Identity | None:
    """The identity in the metadata of a commit; None for one of an earlier release, or of another tool."""
    found = _NOTE.fullmatch(text)
    return Identity(found[1], int(found[2]), found[3]) if found else None


def place(source: str) -> str:
    """`topic:partition` of a source, whatever its identity."""
    name, colon, partition = source.rpartition(":")
    return f"{name.partition('#')[0]}{colon}{partition}"


@dataclass(frozen=True)
class Start:
    """Where to read a partition from, as what; why: one of `REASONS` where that is not what was committed."""

    offset: int
    identity: Identity
    why: str = ""

    @property
    def held(self) -> Held:
        """As the group shall keep it."""
        return Held(self.offset, self.identity.note())


def start(held: Held, topic: str, log: str, begin: int, end: int) -> Start:
    """Where to read an input partition from.

    Args:
        held: what the group committed.
        topic: the topic's id now, empty if unknown.
        log: that of the mutations topic.
        begin: the first offset that Kafka has.
        end: the one after the last.
    """
    before = read_note(held.note)
    was = before or Identity()
    now = Identity(topic or was.topic, was.incarnation, log or was.log)
    if held.offset < 0:
        return Start(begin, now)
    if was.topic and now.topic != was.topic:
        return Start(begin, Identity(now.topic, 0, now.log), MADE_ANEW)
    if held.offset > end:
        return Start(begin, Identity(now.topic, was.incarnation + 1, now.log), CUT_BACK)
    if was.log and now.log != was.log:
        return Start(begin, now, OTHER_LOG)
    if 0 < held.offset < begin:
        return Start(begin, now, UNREAD)
    return Start(max(held.offset, begin), now)


def published(held: Held, log: str, end: int) -> Held:
    """Up to where the outputs of a shard were published, by what the group committed of the mutations topic.

    A commit of another log says nothing of this one.
    """
    before = read_note(held.note)
    now = Identity(log or (before.topic if before else ""))
    other = before is not None and before.topic and before.topic != now.topic
    offset = 0 if other or held.offset > end else max(held.offset, 0)
    return Held(offset, now.note())


def changed(before: Mapping[str, Found], now: Mapping[str, Found]) -> list[str]:
    """The topics that are not the same ones any more; one that is missing, or of which Kafka tells no id, may be."""
    return sorted(
        name
        for name, found in now.items()
        if found.partitions > 0 and found.id and before.get(name, found).id not in {"", found.id}
    )
