"""The manifest of a checkpoint: its files and the state that they hold, described from the state's `meta` rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from rocksdict import AccessType, Options, Rdict

from graphstate.errors import DamagedError

if TYPE_CHECKING:
    from graphstate.storage.store import Store

VERSION = 1
"""The version of the manifest."""


class File(msgspec.Struct, frozen=True):
    """One file of a checkpoint."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=255)]
    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Manifest(msgspec.Struct, frozen=True):
    """The description of a checkpoint.

    Attributes:
        version: The version of the manifest.
        log: The topic that its offsets belong to.
        shard: The shard's number.
        shards: The number of shards.
        format: The state's format.
        spec: The state's parameters.
        next_offset: The offset of the first record of the log that the state does not contain.
        offsets: Offsets of other topics, by their name in `meta`.
        artifact: The version of the model that computed its scores.
        created_s: Unix time of its creation.
        files: Its files.
        log_id: The id of the topic, to recognize a topic that was deleted and created again; empty if unknown.
    """

    version: int
    log: str
    shard: int
    shards: int
    format: int
    spec: dict[str, Any]
    next_offset: Annotated[int, msgspec.Meta(ge=0)]
    offsets: dict[str, int]
    artifact: str
    created_s: float
    files: list[File]
    log_id: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def create_checkpoint(store: Store, folder: Path) -> dict[bytes, bytes]:
    """Write a RocksDB checkpoint of the committed rows and return its `meta` rows.

    Call it between two commits. It flushes the memtables, and links files instead of copying them.

    Args:
        store: The shard's store.
        folder: The folder to create; it must not exist.
    """
    store.checkpoint(folder)
    return dict(store.rows("meta"))


def read_meta(folder: Path) -> dict[bytes, bytes]:
    """Return the `meta` rows of a state of any format, without a lock and without changing anything.

    Raises:
        DamagedError: The folder holds no state that RocksDB can read.
    """
    if not (folder / "CURRENT").is_file():
        raise DamagedError(f"{folder} holds no state")
    try:
        options = {"meta": Options(raw_mode=True)}
        database = Rdict(str(folder), Options(raw_mode=True), options, AccessType.read_only())
        family = database.get_column_family("meta")
        rows = family.iter()
        rows.seek_to_first()
        meta = {}
        while rows.valid():
            meta[rows.key()] = rows.value()
            rows.next()
        rows.status()
        del rows
        family.close()
        database.close()
    except Exception as error:  # rocksdict raises bare exceptions
        raise DamagedError(f"{folder} cannot be read: restore or remove it ({error})") from error
    return meta


def describe(meta: dict[bytes, bytes], *, log: str, shard: int, shards: int, created_s: float) -> Manifest:
    """Return the manifest of a state without its files.

    Args:
        meta: The state's `meta` rows.
        log: The topic that the offsets belong to.
        shard: The shard's number.
        shards: The number of shards, for states that do not store it.
        created_s: Unix time of the checkpoint.

    Raises:
        DamagedError: The state has no commit.
    """
    if not {b"format", b"spec", b"next"} <= meta.keys():
        raise DamagedError("the state is empty: nothing was committed yet")
    names, spec = {name for name in meta if name.endswith(b"_next")}, json.loads(meta[b"spec"])
    return Manifest(
        VERSION,
        log,
        shard,
        int(spec.get("shards", shards)),
        int(meta[b"format"]),
        spec,
        int(meta[b"next"]),
        {name.decode(): int(meta[name]) for name in sorted(names)},
        meta.get(b"model", b"").decode(),
        created_s,
        [],
        meta.get(b"log", b"").decode(),
    )
