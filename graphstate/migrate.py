"""Migration: a state of an older format becomes one of the present format, beside it and then in its place.

Nothing of the old state is changed until the new one is complete, so a crash leaves one or the other.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct

import numpy as np

from graphstate import keys
from graphstate.errors import FormatError
from graphstate.keys import NEVER
from graphstate.nodes import TRACE_BYTES
from graphstate.store import FAMILIES, Store
from graphstate.types import CONTENT, SHARED, USER

Progress = Callable[[str, int, int], None]
Row = tuple[str, bytes, bytes]
"""Family, key, value."""

BATCH = 50_000
BEHIND, BESIDE = ".old-", ".migrating-"


def migrate(folder: Path, found: int, wanted: int, progress: Progress) -> None:
    """Bring the state in a folder from a format to a later one, step by step.

    Raises:
        FormatError: there is no way from that format.
    """
    if found > wanted:
        raise FormatError(f"{folder} has format {found}, this version reads {wanted}: run the release that wrote it")
    for version in range(found, wanted):
        step = _STEPS.get(version)
        if step is None:
            raise FormatError(
                f"{folder} has format {found}, too old to read: remove the folder to rebuild from the log"
            )
        beside, behind = folder.with_name(BESIDE + folder.name), folder.with_name(BEHIND + folder.name)
        shutil.rmtree(beside, ignore_errors=True)
        _copy(folder, beside, step, progress)
        shutil.rmtree(behind, ignore_errors=True)
        folder.rename(behind)
        beside.rename(folder)
        recover(folder)


def recover(folder: Path) -> None:
    """End what a crash in the middle of a migration left: the old state is whole until the new one has its name."""
    beside, behind = folder.with_name(BESIDE + folder.name), folder.with_name(BEHIND + folder.name)
    if behind.exists() and not folder.exists():
        behind.rename(folder)
    elif behind.exists():
        # Half removed, it must not pass for an old state.
        shutil.rmtree(beside, ignore_errors=True)
        behind.rename(beside)
    shutil.rmtree(beside, ignore_errors=True)


def recover_all(datadir: Path) -> None:
    """`recover` of every state in a worker's folder, also where nothing bears its name for the moment."""
    for left in (*datadir.glob(f"{BEHIND}*"), *datadir.glob(f"{BESIDE}*")):
        recover(left.with_name(left.name.removeprefix(BEHIND).removeprefix(BESIDE)))


def _copy(folder: Path, beside: Path, step: Callable[[Store], Iterator[Row]], progress: Progress) -> None:
    old, new = Store(folder, read_only=True), Store(beside)
    try:
        for done, (family, key, value) in enumerate(step(old)):
            new.write(family, key, value)
            if done % BATCH == 0:
                new.commit()
                progress("migrating", done, 0)
        new.commit()
    finally:
        old.close()
        new.close()


# From format 1 to 2: room for several shards

_CONTENT_1 = Struct("<qqqiiiiB")
_CONTENT_2 = Struct("<qqqiiiiiB")
_USER = Struct("<qqq")


def _from_1(old: Store) -> Iterator[Row]:
    """Credits have keys, every reply has one, contents count their uses, the forgotten keep the hash of their id."""
    spec = json.loads(dict(old.rows("meta"))[b"spec"])
    retention_us = spec["retention_s"] * 1_000_000
    contents: dict[int, tuple[int, int, int]] = {}
    for key, value in old.rows("nodes"):
        kind, row = keys.read_node(key)
        if kind == CONTENT:
            created_at, deleted, touched, creator, reply, sharers, reach, claims = _CONTENT_1.unpack_from(value)
            contents[row] = created_at, creator, reply
            fields = created_at, deleted, touched, creator, reply, sharers, reach, 0, claims
            yield "nodes", key, _CONTENT_2.pack(*fields) + value[_CONTENT_1.size :]
            if reply >= 0:
                yield "edges", keys.pair(keys.REPLIES, reply, row), b""
        elif kind == USER and not value[_USER.size]:
            # The hash of an id that is gone cannot be had; it only ordered shares of one moment.
            yield "nodes", key, value[:-TRACE_BYTES] + bytes(8) + value[-TRACE_BYTES:]
        else:
            yield "nodes", key, value
    yield from _edges_from_1(old, contents, retention_us)
    for family in set(FAMILIES) - {"nodes", "edges", "meta"}:
        yield from ((family, key, value) for key, value in old.rows(family))
    for key, value in old.rows("meta"):
        if key not in {b"format", b"spec"}:
            yield "meta", key, value
    yield "meta", b"spec", json.dumps({**spec, "shards": 1, "shard": 0}).encode()
    yield "meta", b"format", b"2"


def _edges_from_1(old: Store, contents: dict[int, tuple[int, int, int]], retention_us: int) -> Iterator[Row]:
    for key, value in old.rows("edges"):
        if key[:1] == keys.REPLIES:
            continue
        yield "edges", key, value
        if key[0] == SHARED:
            target = int.from_bytes(key[1:5], "big")
            time, sharer = keys.read_index(key)
            created_at, creator, _ = contents.get(target, (NEVER, -1, -1))
            if created_at != NEVER and (not retention_us or time <= created_at + retention_us):
                yield "edges", keys.credit(creator, sharer, time, target), b""
        elif key[:1] == keys.CREATE_CLAIM:
            content = int.from_bytes(key[1:5], "big")
            reply = keys.read_create_claim(key)[2]
            if reply >= 0:
                yield "edges", keys.pair(keys.REPLIES, reply, content), b""


# From format 2 to 3: of a user's counters those that are not zero


def _from_2(old: Store) -> Iterator[Row]:
    for family in FAMILIES:
        for key, value in old.rows(family):
            yield family, key, _packed_3(value) if family == "counters" else value
    yield "meta", b"format", b"3"


def _packed_3(value: bytes) -> bytes:
    words = np.frombuffer(value, "<u4")
    some = words != 0
    mask: bytes = np.packbits(some, bitorder="little").tobytes()
    present: bytes = words[some].tobytes()
    return mask + present


_STEPS: dict[int, Callable[[Store], Iterator[Row]]] = {1: _from_1, 2: _from_2}
