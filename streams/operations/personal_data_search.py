"""Where a person is still found: the rows and the files of a data folder, checkpoints, and the topics.

Rows say what the state knows. The search of the files is for the bytes of the id, so it also finds what RocksDB
has replaced and not yet dropped; it finds the id inside of longer ones too, which is told apart by their number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError

from graphstate.errors import DamagedError, GraphError
from graphstate.memory.node_tables import forgotten_key
from graphstate.state import FORMAT
from graphstate.storage import row_layouts
from graphstate.storage.checkpoint import Repository, read_meta
from graphstate.storage.store import Store
from graphstate.types import CREATED, FOLLOWS, HAS_MEMBER, INTERACTS, USER, Fact, Kind, Mutation, owner
from streams.errors import BadEvent, BrokerError, Right, one_line
from streams.kafka.access import rights
from streams.kafka.log_io import read_partitions
from streams.kafka.topics import DEAD_LETTERS, Topics, admin
from streams.messages.events import mutations
from streams.messages.halos import Halo, decode
from streams.messages.headers import rfc3339
from streams.messages.mutation_packs import unpack
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings
from streams.worker.checkpoints import open_address
from streams.worker.data_dir import readable, shard_folders

CHUNK_BYTES = 8 << 20
TAIL_BYTES = 1 << 16
"""The properties of an SST file are at its end."""
OPENED = 3
"""How often a state is opened that a worker changes meanwhile."""
_TABLES = (
    row_layouts.FOLLOW,
    row_layouts.MEMBER,
    row_layouts.SHARE,
    row_layouts.SHARE_CLAIM,
    row_layouts.PAIR,
    row_layouts.CREDIT,
    row_layouts.VIA,
)
_INDEXES = (FOLLOWS, INTERACTS, CREATED, HAS_MEMBER)
_REGISTERS = 24
# Properties lie one behind the other there, each name without what it shares with the one before.
_NODES, _COMPRESSED = re.compile(rb"namenodes"), re.compile(rb"ression(?!NoCompression)[A-Z]")


@dataclass
class InShard:
    """What one shard's rows say of a person.

    named: there is a record with the id. edges: rows that begin with the person. forgotten_s: up to when the person
    was forgotten (Unix time; only a hash of the id is left), if that is so. others: records with longer ids that
    contain it. wrong: why nothing can be said.
    """

    shard: int
    owner: bool = False
    named: bool = False
    edges: int = 0
    forgotten_s: float | None = None
    others: int = 0
    wrong: str = ""


@dataclass
class InFiles:
    """What a search of files found.

    files, size: how much was searched, in bytes. found: how often the id's bytes are in which. compressed: files that
    may hold ids and cannot be searched, as a release before this one compressed them.
    """

    files: int = 0
    size: int = 0
    found: dict[str, int] = field(default_factory=dict)
    compressed: list[str] = field(default_factory=list)

    def search(self, source: BinaryIO, name: str, needle: bytes) -> None:
        """Search one file."""
        count, size, last, end = 0, 0, b"", b""
        while chunk := source.read(CHUNK_BYTES):
            text = last + chunk
            count += text.count(needle)
            last = text[len(text) - len(needle) + 1 :] if len(needle) > 1 else b""
            size += len(chunk)
            end = (end + chunk)[-TAIL_BYTES:]
        self.files += 1
        self.size += size
        if count:
            self.found[name] = count
        if name.endswith(".sst") and _is_compressed(end):
            self.compressed.append(name)


def _is_compressed(end: bytes) -> bool:
    """Whether an SST file holds nodes and is compressed, by its properties (which never are)."""
    return _NODES.search(end) is not None and _COMPRESSED.search(end) is not None


def in_shards(settings: Settings, user: str) -> list[InShard]:
    """What the rows of each state in the data folder say; a running worker is not disturbed."""
    readable(settings.datadir)
    found = [_in_shard(number, folder, user) for number, folder in shard_folders(settings.datadir).items()]
    for one in found:
        one.owner = owner(user, settings.shards) == one.shard
    return found


def _in_shard(number: int, folder: Path, user: str) -> InShard:
    wrong = ""
    for _ in range(OPENED):
        try:
            found = int(read_meta(folder).get(b"format", b"0"))
            if found != FORMAT:
                return InShard(number, wrong=f"it has format {found}, this version reads {FORMAT}")
            store = Store(folder, read_only=True)
        except GraphError as error:
            wrong = one_line(error)
            continue
        try:
            return _rows(number, store, user)
        except GraphError as error:
            wrong = one_line(error)
        finally:
            store.close()
    return InShard(number, wrong=wrong)


def _rows(number: int, store: Store, user: str) -> InShard:
    found, needle, trace, row = InShard(number), user.encode(), forgotten_key(user), -1
    for key, value in store.rows("nodes"):
        kind, at = row_layouts.read_node(key)
        named = kind != USER or value[_REGISTERS]
        if kind == USER and named and value[_REGISTERS + 1 :] == needle:
            found.named, row = True, at
        elif kind == USER and not named and value.endswith(trace):
            found.forgotten_s, row = int.from_bytes(value[16:24], "little", signed=True) / 1e6, at
        elif named and needle in value:
            found.others += 1
    if row >= 0:
        prefixes = [row_layouts.prefix(table, row) for table in _TABLES]
        prefixes += [row_layouts.index_prefix(relation, row) for relation in _INDEXES]
        found.edges = sum(1 for prefix in prefixes for _ in store.scan(prefix))
    return found


def in_files(datadir: Path, user: str) -> InFiles:
    """A byte search of everything in a data folder."""
    readable(datadir)
    found, needle = InFiles(), user.encode()
    for path in sorted(datadir.rglob("*")):
        try:
            if path.is_file():
                with path.open("rb") as source:
                    found.search(source, str(path.relative_to(datadir)), needle)
        except FileNotFoundError:  # RocksDB has just dropped it
            continue
    return found


# Checkpoints


@dataclass
class InCheckpoint:
    """How often a checkpoint's files hold the id's bytes; checkpoint: its id, or that of none: files of removed ones,
    which stay for an hour. wrong: why that cannot be said, or not of all of them.
    """

    folder: str
    checkpoint: str
    created_s: float | None = None
    count: int = 0
    wrong: str = ""


REMOVED = "(removed)"


def in_checkpoints(settings: Settings, user: str) -> Iterator[InCheckpoint]:
    """A byte search of all checkpoints of this log, also of another number of shards; reads each file once.

    Raises:
        GraphError, SettingsError: they cannot be reached.
    """
    fs, root = open_address(settings.checkpoints)
    above = f"{root.rstrip('/')}/{Topics(settings).mutations.name}"
    try:
        folders = sorted(str(about["name"]) for about in fs.ls(above, detail=True) if about["type"] == "directory")
    except FileNotFoundError:
        return
    except OSError as error:
        raise GraphError(f"{above} cannot be listed ({one_line(error)}): is GROUNDSWELL_CHECKPOINTS right?") from error
    for folder in folders:
        yield from _in_repository(Repository(fs, folder), folder.rpartition("/")[2], user.encode())


def _in_repository(kept: Repository, folder: str, needle: bytes) -> Iterator[InCheckpoint]:
    known: dict[str, InFiles] = {}

    def search(blob: str, name: str) -> InFiles:
        if blob not in known:
            known[blob] = InFiles()
            with kept.fs.open(f"{kept.root}/blobs/{blob}", "rb") as source:
                known[blob].search(source, name, needle)
        return known[blob]

    for name in kept.ids():
        found = InCheckpoint(folder, name)
        try:
            manifest = kept.load(name)
            found.created_s = manifest.created_s
            for file in manifest.files:
                searched = search(file.sha256, file.name)
                found.count += sum(searched.found.values())
                if searched.compressed:
                    found.wrong = "some of it is compressed and cannot be searched"
        except (DamagedError, OSError) as error:
            found.wrong = one_line(error)
        yield found
    removed = InCheckpoint(folder, REMOVED)
    with suppress(FileNotFoundError):
        for path in kept.fs.ls(f"{kept.root}/blobs", detail=False):
            blob = str(path).rpartition("/")[2]
            if blob not in known:
                removed.count += sum(search(blob, "").found.values())
    if removed.count:
        yield removed


# Topics


@dataclass
class InTopic:
    """Records of a topic that name a person.

    records: how many it has. newest_ms: Kafka's time of the newest that does. below: by partition, the offset below
    which all of them are. kept_ms: for how long Kafka keeps a record; None: for ever, or until one with the same key
    replaces it. newest: on the score topic what its newest record holds, a score or a tombstone.
    """

    topic: str
    records: int = 0
    naming: int = 0
    newest_ms: int = 0
    below: dict[int, int] = field(default_factory=dict)
    kept_ms: int | None = None
    newest: str = ""

    @property
    def until_s(self) -> float | None:
        """From when on Kafka may drop the last of them (Unix time)."""
        return (self.newest_ms + self.kept_ms) / 1_000 if self.naming and self.kept_ms is not None else None


def in_topics(settings: Settings, user: str, progress: Callable[[str, int, int], None]) -> Iterator[InTopic]:
    """Read all topics that Kafka has from end to end, and count what names a person.

    Raises:
        BrokerError: Kafka cannot be asked.
    """
    topics, needle = Topics(settings), user.encode()
    with admin(settings) as client:
        absent = rights.absent(client, [spec.name for spec in topics.all()])
        specs = [spec for spec in topics.all() if spec.name not in absent]
        needed = ("read", "describe_configs")
        rights.require(client, [Right(operation, spec.name) for operation in needed for spec in specs])
        kept = {spec.name: _kept_ms(client, spec.name) for spec in specs}
    for spec in specs:
        found = InTopic(spec.name, kept_ms=kept[spec.name])
        for record in _records(settings, spec.name, progress):
            found.records += 1
            if not _naming(topics, record, user, needle):
                continue
            found.naming += 1
            found.below[record.partition] = record.offset + 1
            found.newest_ms = max(found.newest_ms, record.timestamp)
            if spec.name == topics.score.name:
                found.newest = "score" if record.value else "tombstone"
        yield found


def _kept_ms(client: KafkaAdminClient, name: str) -> int | None:
    wanted = {"cleanup.policy": None, "retention.ms": None}
    found = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name, wanted)], config_filter="all")
    config = {key: about["value"] for key, about in next(iter(found.values()))[name].items()}
    kept_ms = int(config["retention.ms"])
    return kept_ms if "delete" in config["cleanup.policy"] and kept_ms >= 0 else None


def _records(settings: Settings, name: str, progress: Callable[[str, int, int], None]) -> Iterator[Any]:
    try:
        consumer = KafkaConsumer(
            **kafka_arguments(settings), enable_auto_commit=False, max_partition_fetch_bytes=CHUNK_BYTES
        )
        try:
            parts = [TopicPartition(name, number) for number in sorted(consumer.partitions_for_topic(name) or ())]
            begins, ends = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
            left = {part: ends[part] - begins[part] for part in parts}
            total = sum(left.values())
            for records in read_partitions(consumer, {part: (begins[part], ends[part]) for part in parts}):
                yield from records
                part = TopicPartition(name, records[-1].partition)
                left[part] = ends[part] - records[-1].offset - 1
                progress(name, total - sum(left.values()), total)
        finally:
            consumer.close()
    except KafkaError as error:
        refusal = rights.refusal(error, settings, Right("read", name))
        raise refusal or BrokerError(f"{name} cannot be read ({one_line(error)}); try again") from error


def _naming(topics: Topics, record: Any, user: str, needle: bytes) -> bool:
    """Whether a record names the person as a user; of what cannot be read: whether it holds the id's bytes."""
    value, name = record.value or b"", record.topic
    if name in (topics.score.name, topics.alert.name):
        return bool(record.key == needle)
    if name in (topics.mutations.name, topics.halos.name):
        if needle not in value:
            return False
        if name == topics.halos.name:
            return user in _mirrored(decode(value))
        return any(user in _users(one) for segment in unpack(value).segments for one in segment.mutations)
    if name == topics.models.name:  # artifacts, which name no users
        return False
    held = needle in value or needle in (record.key or b"")
    if name.endswith(DEAD_LETTERS):
        return held
    # JSON can hold an id in other bytes, escaped.
    if not held and b"\\" not in value:
        return False
    try:
        return any(user in _users(one) for one in mutations(value, topics.kind(name), record.timestamp))
    except BadEvent:
        return held


def _users(one: Mutation) -> tuple[str | None, ...]:
    """The users whom an event or a fact names."""
    if one.kind in (Kind.FOLLOW, Kind.UNFOLLOW, Fact.RECEIVED, Fact.UNRECEIVED, Fact.KEPT):
        return one.user, one.other
    return (one.user, one.extra) if one.kind == Kind.SHARE else (one.user,)


def _mirrored(halo: Halo) -> set[str]:
    """The users whom a halo tells of or asks for."""
    nodes = {node.node_id for node in halo.nodes if node.kind == USER}
    wants = {want.node_id for want in halo.wants if want.kind == USER}
    return nodes | wants | {node_id for kind, node_id in halo.drops if kind == USER}


# For people


def tables(
    settings: Settings, shards: list[InShard], files: InFiles, kept: list[InCheckpoint], read: list[InTopic]
) -> Iterator[str | list[dict[str, Any]]]:
    """Everything as lines and tables."""
    datadir = settings.datadir
    yield [
        {
            "shard": one.shard,
            "owner": one.owner,
            "named": None if one.wrong else one.named,
            "edges": None if one.wrong else one.edges,
            "forgotten": None if one.forgotten_s is None else rfc3339(round(one.forgotten_s * 1e6)),
            "in longer ids": None if one.wrong else one.others,
            "wrong": one.wrong or None,
        }
        for one in shards
    ] or f"there is no state in {datadir}"
    yield f"\n{sum(files.found.values())} times in the {files.size:,} bytes of {files.files} files in {datadir}"
    yield [{"file": name, "times": count} for name, count in files.found.items()]
    if files.compressed:
        yield f"{len(files.compressed)} files cannot be searched: an earlier release compressed them"
    if settings.checkpoints:
        yield f"\n{sum(one.count > 0 for one in kept)} of {len(kept)} checkpoints hold it"
        yield [
            {
                "folder": one.folder,
                "checkpoint": one.checkpoint,
                "created": None if one.created_s is None else rfc3339(round(one.created_s * 1e6)),
                "times": one.count,
                "wrong": one.wrong or None,
            }
            for one in kept
        ]
    if read:
        yield ""
        yield [
            {
                "topic": one.topic,
                "records": one.records,
                "naming": one.naming,
                "newest": one.newest or None,
                "below": " ".join(f"{part}:{offset}" for part, offset in sorted(one.below.items())) or None,
                "until": _until(one),
            }
            for one in read
        ]


def _until(one: InTopic) -> str | None:
    if one.until_s is not None:
        return rfc3339(round(one.until_s * 1e6))
    if not one.naming:
        return None
    return "replaced" if one.newest else "for ever"
