"""Search for a user's id in the rows and files of a data folder, in checkpoints and in the topics.

Rows are what the state uses. Files are searched for the bytes of the id, so a search also finds values that RocksDB has
replaced and not dropped yet. It finds the id inside longer ids too; the rows count those separately.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
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
from graphstate.storage.checkpoints.manifest import read_meta
from graphstate.storage.checkpoints.repository import Repository
from graphstate.storage.journal import Journal
from graphstate.storage.store import Store
from graphstate.types import CONTENT, CREATED, USER, Fact, Kind, Mutation, Progress, owner
from streams.errors import BadEvent, BrokerError, Right, one_line
from streams.kafka.access import rights
from streams.kafka.log_io import read_partitions
from streams.kafka.topics import DEAD_LETTERS, Topics, admin
from streams.messages.analysis_outputs import decode_seeds
from streams.messages.events import mutations
from streams.messages.halos import Halo, decode
from streams.messages.headers import rfc3339
from streams.messages.outputs import SEPARATOR
from streams.messages.packs.mutation_packs import unpack
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings
from streams.worker.checkpoints import open_address
from streams.worker.data_dir import check_readable, shard_folders

CHUNK_BYTES = 8 << 20
"""Size of a read, and maximum size of a fetch per partition."""
TAIL_BYTES = 1 << 16
"""Size of the end of an SST file that holds its properties."""
OPEN_ATTEMPTS = 3
"""Number of attempts to open a state while a worker changes its files."""
# The names of properties are prefix-compressed, each without the prefix that it shares with the previous name.
_NODES, _COMPRESSED = re.compile(rb"namenodes"), re.compile(rb"ression(?!NoCompression)[A-Z]")


@dataclass
class ShardFindings:
    """Rows of one shard that concern the user.

    Attributes:
        shard: Number of the shard.
        owner: Whether this shard owns the user.
        named: Whether a record holds the id.
        edges: Number of rows that begin with the user.
        forgotten_s: Time of the newest forget (Unix time) if only a hash of the id is left, else None.
        others: Number of records with longer ids that contain the id.
        wrong: Why the shard could not be searched; empty if it was.
    """

    shard: int
    owner: bool = False
    named: bool = False
    edges: int = 0
    forgotten_s: float | None = None
    others: int = 0
    wrong: str = ""


@dataclass
class FileFindings:
    """Occurrences of the id's bytes in files.

    Attributes:
        files: Number of files that were searched.
        size: Size of these files (bytes).
        found: Number of occurrences by file name, without files that have none.
        compressed: Files that may hold ids and cannot be searched, because an earlier release compressed them.
    """

    files: int = 0
    size: int = 0
    found: dict[str, int] = field(default_factory=dict)
    compressed: list[str] = field(default_factory=list)

    def search(self, source: BinaryIO, name: str, needle: bytes) -> None:
        """Search one file.

        Args:
            source: Content of the file.
            name: Name of the file in the findings.
            needle: Bytes of the id.
        """
        count, size, overlap, end = 0, 0, b"", b""
        while chunk := source.read(CHUNK_BYTES):
            text = overlap + chunk
            count += text.count(needle)
            # The end is one byte shorter than the id, so no occurrence is counted twice.
            overlap = text[len(text) - len(needle) + 1 :] if len(needle) > 1 else b""
            size += len(chunk)
            end = (end + chunk)[-TAIL_BYTES:]
        self.files += 1
        self.size += size
        if count:
            self.found[name] = count
        if name.endswith(".sst") and _is_compressed(end):
            self.compressed.append(name)


def _is_compressed(end: bytes) -> bool:
    """Return whether an SST file holds nodes and is compressed, from its properties, which never are."""
    return _NODES.search(end) is not None and _COMPRESSED.search(end) is not None


def search_shards(settings: Settings, user: str) -> list[ShardFindings]:
    """Search the rows of each state in the data folder, read-only, also while a worker runs."""
    check_readable(settings.datadir)
    findings = [_search_shard(number, folder, user) for number, folder in shard_folders(settings.datadir).items()]
    for shard in findings:
        shard.owner = owner(user, settings.shards) == shard.shard
    return findings


def _search_shard(number: int, folder: Path, user: str) -> ShardFindings:
    problem = ""
    for _ in range(OPEN_ATTEMPTS):
        try:
            state_format = int(read_meta(folder).get(b"format", b"0"))
            if state_format != FORMAT:
                return ShardFindings(number, wrong=f"it has format {state_format}, this version reads {FORMAT}")
            store = Store(folder, read_only=True)
        except GraphError as error:
            problem = one_line(error)
            continue
        try:
            return _search_rows(number, store, user)
        except GraphError as error:
            problem = one_line(error)
        finally:
            store.close()
    return ShardFindings(number, wrong=problem)


def _search_rows(number: int, store: Store, user: str) -> ShardFindings:
    findings, needle, trace, user_row = ShardFindings(number), user.encode(), forgotten_key(user), -1
    created: Counter[int] = Counter()
    for key, value in store.rows("nodes"):
        kind, row = row_layouts.read_node(key)
        has_id = kind != USER or value[0]
        if kind == CONTENT:
            created[row_layouts.CONTENT_STRUCT.unpack_from(value)[3]] += 1
        if kind == USER and has_id and value[1:] == needle:
            findings.named, user_row = True, row
        elif kind == USER and not has_id and value.endswith(trace):
            registers = store.committed("counters", key)
            findings.forgotten_s, user_row = row_layouts.read_user(registers)[2] / 1e6 if registers else 0.0, row
        elif has_id and needle in value:
            findings.others += 1
    if user_row >= 0:
        for _ in Journal(store, store.registers).load():
            pass
        store.registers.loaded(0)
        rows = [row_layouts.prefix(row_layouts.SHARE_CLAIM, user_row), row_layouts.index_prefix(CREATED, user_row)]
        findings.edges = sum(1 for prefix in rows for _ in store.scan(prefix))
        findings.edges += store.registers.count_of(user_row) + created[user_row]
    return findings


def search_files(datadir: Path, user: str) -> FileFindings:
    """Search the bytes of every file in a data folder."""
    check_readable(datadir)
    findings, needle = FileFindings(), user.encode()
    for path in sorted(datadir.rglob("*")):
        try:
            if path.is_file():
                with path.open("rb") as source:
                    findings.search(source, str(path.relative_to(datadir)), needle)
        except FileNotFoundError:  # RocksDB deleted it after it was listed
            continue
    return findings


# Checkpoints


@dataclass
class CheckpointFindings:
    """Occurrences of the id's bytes in the files of one checkpoint.

    Attributes:
        folder: Folder of the shard's checkpoints.
        checkpoint: Id of the checkpoint; REMOVED for files of removed checkpoints, which stay for an hour.
        created_s: Time at which it was written (Unix time).
        count: Number of occurrences.
        wrong: Why some or all of its files could not be searched; empty if all were.
    """

    folder: str
    checkpoint: str
    created_s: float | None = None
    count: int = 0
    wrong: str = ""


REMOVED = "(removed)"


def search_checkpoints(settings: Settings, user: str) -> Iterator[CheckpointFindings]:
    """Search all checkpoints of this log, also those of another number of shards; each file is read once.

    Raises:
        GraphError: the folder of the checkpoints cannot be listed.
        SettingsError: the address of the checkpoints cannot be used.
    """
    fs, root = open_address(settings.checkpoints)
    parent = f"{root.rstrip('/')}/{Topics(settings).mutations.name}"
    try:
        folders = sorted(str(entry["name"]) for entry in fs.ls(parent, detail=True) if entry["type"] == "directory")
    except FileNotFoundError:
        return
    except OSError as error:
        raise GraphError(f"{parent} cannot be listed ({one_line(error)}): is GROUNDSWELL_CHECKPOINTS right?") from error
    for folder in folders:
        yield from _search_repository(Repository(fs, folder), folder.rpartition("/")[2], user.encode())


def _search_repository(repository: Repository, folder: str, needle: bytes) -> Iterator[CheckpointFindings]:
    searched: dict[str, FileFindings] = {}

    def search(blob: str, name: str) -> FileFindings:
        if blob not in searched:
            searched[blob] = FileFindings()
            with repository.fs.open(f"{repository.root}/blobs/{blob}", "rb") as source:
                searched[blob].search(source, name, needle)
        return searched[blob]

    for checkpoint_id in repository.ids():
        findings = CheckpointFindings(folder, checkpoint_id)
        try:
            manifest = repository.load(checkpoint_id)
            findings.created_s = manifest.created_s
            for file in manifest.files:
                in_file = search(file.sha256, file.name)
                findings.count += sum(in_file.found.values())
                if in_file.compressed:
                    findings.wrong = "some of it is compressed and cannot be searched"
        except (DamagedError, OSError) as error:
            findings.wrong = one_line(error)
        yield findings
    removed = CheckpointFindings(folder, REMOVED)
    with suppress(FileNotFoundError):
        for path in repository.fs.ls(f"{repository.root}/blobs", detail=False):
            blob = str(path).rpartition("/")[2]
            if blob not in searched:
                removed.count += sum(search(blob, "").found.values())
    if removed.count:
        yield removed


# Topics


@dataclass
class TopicFindings:
    """Records of a topic that name the user.

    Attributes:
        topic: Name of the topic.
        records: Number of records in the topic.
        naming: Number of records that name the user.
        newest_ms: Kafka's timestamp of the newest of these (Unix time in ms).
        below: By partition: all of these have offsets below this one.
        kept_ms: Retention of the topic (ms); None if records are kept for ever, or until a record with the same key
            replaces them.
        newest: On the topics of scores, also by topic: content of the newest of these, `score` or `tombstone`.
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
        """Time from which Kafka may drop the newest of these records (Unix time); None if it never does."""
        return (self.newest_ms + self.kept_ms) / 1_000 if self.naming and self.kept_ms is not None else None


def search_topics(settings: Settings, user: str, progress: Progress) -> Iterator[TopicFindings]:
    """Read all topics that exist from end to end, and count the records that name the user.

    Raises:
        BrokerError: Kafka cannot be read.
        NotAllowed: the user may not read or describe a topic.
    """
    topics, needle = Topics(settings), user.encode()
    with admin(settings) as client:
        absent = rights.absent(client, [spec.name for spec in topics.all()])
        specs = [spec for spec in topics.all() if spec.name not in absent]
        needed = ("read", "describe_configs")
        rights.require(client, [Right(operation, spec.name) for operation in needed for spec in specs])
        kept_ms = {spec.name: _kept_ms(client, spec.name) for spec in specs}
    for spec in specs:
        findings = TopicFindings(spec.name, kept_ms=kept_ms[spec.name])
        for record in _records(settings, spec.name, progress):
            findings.records += 1
            if not _names_user(topics, record, user, needle):
                continue
            findings.naming += 1
            findings.below[record.partition] = record.offset + 1
            findings.newest_ms = max(findings.newest_ms, record.timestamp)
            if spec in (topics.score, topics.topic):
                findings.newest = "score" if record.value else "tombstone"
        yield findings


def _kept_ms(client: KafkaAdminClient, name: str) -> int | None:
    wanted = {"cleanup.policy": None, "retention.ms": None}
    answers = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name, wanted)], config_filter="all")
    config = {key: entry["value"] for key, entry in next(iter(answers.values()))[name].items()}
    kept_ms = int(config["retention.ms"])
    return kept_ms if "delete" in config["cleanup.policy"] and kept_ms >= 0 else None


def _records(settings: Settings, name: str, progress: Progress) -> Iterator[Any]:
    try:
        consumer = KafkaConsumer(
            **kafka_arguments(settings), enable_auto_commit=False, max_partition_fetch_bytes=CHUNK_BYTES
        )
        try:
            partitions = [TopicPartition(name, number) for number in sorted(consumer.partitions_for_topic(name) or ())]
            begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
            bounds = {partition: (begins[partition], ends[partition]) for partition in partitions}
            unread = {partition: end - begin for partition, (begin, end) in bounds.items()}
            total = sum(unread.values())
            for records in read_partitions(consumer, bounds):
                yield from records
                partition = TopicPartition(name, records[-1].partition)
                unread[partition] = ends[partition] - records[-1].offset - 1
                progress(name, total - sum(unread.values()), total)
        finally:
            consumer.close()
    except KafkaError as error:
        refusal = rights.refusal(error, settings, Right("read", name))
        raise refusal or BrokerError(f"{name} cannot be read ({one_line(error)}); try again") from error


def _names_user(topics: Topics, record: Any, user: str, needle: bytes) -> bool:
    """Return whether a record names the user, or, if it cannot be decoded, whether it holds the id's bytes."""
    value, name = record.value or b"", record.topic
    outputs = (topics.score, topics.alert, topics.outcome, topics.centrality, topics.community)
    if name in {spec.name for spec in outputs}:
        return bool(record.key == needle) or (name == topics.alert.name and user in _sharers(value))
    if name == topics.topic.name:
        return bool(record.key.partition(SEPARATOR.encode())[2] == needle)
    if name == topics.seeds.name:
        return bool(value) and user in decode_seeds(value).seeds
    if name in (topics.mutations.name, topics.halos.name):
        if needle not in value:
            return False
        if name == topics.halos.name:
            return user in _users_of_halo(decode(value))
        return any(user in _users(mutation) for mutation in unpack(value).columns.mutations())
    if name == topics.models.name:  # artifacts, which name no users
        return False
    holds_bytes = needle in value or needle in (record.key or b"")
    if name.endswith(DEAD_LETTERS):
        return holds_bytes
    # JSON may hold the id escaped, which are other bytes.
    if not holds_bytes and b"\\" not in value:
        return False
    try:
        return any(user in _users(mutation) for mutation in mutations(value, topics.kind(name), record.timestamp))
    except BadEvent:
        return holds_bytes


def _sharers(alert: bytes) -> list[str]:
    """Return the new sharers that an alert names."""
    try:
        found: list[str] = json.loads(alert).get("sharers", [])
    except (ValueError, AttributeError):
        return []
    return found


def _users(mutation: Mutation) -> tuple[str | None, ...]:
    """Return the users that an event or a fact names."""
    if mutation.kind in (Kind.FOLLOW, Kind.UNFOLLOW, Fact.RECEIVED, Fact.UNRECEIVED, Fact.KEPT):
        return mutation.user, mutation.other
    return (mutation.user, mutation.extra) if mutation.kind == Kind.SHARE else (mutation.user,)


def _users_of_halo(halo: Halo) -> set[str]:
    """Return the users that a halo sends, requests or drops."""
    nodes = {node.node_id for node in halo.nodes if node.kind == USER}
    wants = {want.node_id for want in halo.wants if want.kind == USER}
    return nodes | wants | {node_id for kind, node_id in halo.drops if kind == USER}


# Text


def tables(
    settings: Settings,
    shards: list[ShardFindings],
    files: FileFindings,
    checkpoints: list[CheckpointFindings],
    topics: list[TopicFindings],
) -> Iterator[str | list[dict[str, Any]]]:
    """Yield all findings as lines and tables."""
    datadir = settings.datadir
    yield [
        {
            "shard": shard.shard,
            "owner": shard.owner,
            "named": None if shard.wrong else shard.named,
            "edges": None if shard.wrong else shard.edges,
            "forgotten": None if shard.forgotten_s is None else rfc3339(round(shard.forgotten_s * 1e6)),
            "in longer ids": None if shard.wrong else shard.others,
            "wrong": shard.wrong or None,
        }
        for shard in shards
    ] or f"there is no state in {datadir}"
    yield f"\n{sum(files.found.values())} times in the {files.size:,} bytes of {files.files} files in {datadir}"
    yield [{"file": name, "times": count} for name, count in files.found.items()]
    if files.compressed:
        yield f"{len(files.compressed)} files cannot be searched: an earlier release compressed them"
    if settings.checkpoints:
        holding = sum(checkpoint.count > 0 for checkpoint in checkpoints)
        yield f"\n{holding} of {len(checkpoints)} checkpoints hold it"
        yield [
            {
                "folder": checkpoint.folder,
                "checkpoint": checkpoint.checkpoint,
                "created": None if checkpoint.created_s is None else rfc3339(round(checkpoint.created_s * 1e6)),
                "times": checkpoint.count,
                "wrong": checkpoint.wrong or None,
            }
            for checkpoint in checkpoints
        ]
    if topics:
        yield ""
        yield [
            {
                "topic": topic.topic,
                "records": topic.records,
                "naming": topic.naming,
                "newest": topic.newest or None,
                "below": " ".join(f"{part}:{offset}" for part, offset in sorted(topic.below.items())) or None,
                "until": _until(topic),
            }
            for topic in topics
        ]


def _until(topic: TopicFindings) -> str | None:
    if topic.until_s is not None:
        return rfc3339(round(topic.until_s * 1e6))
    if not topic.naming:
        return None
    return "replaced" if topic.newest else "for ever"
